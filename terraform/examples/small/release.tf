module "platform" {
  source = "../../modules/platform"

  namespace          = var.namespace
  database_admin_url = "postgresql://${module.database.username}:${module.database_password.value}@${module.database.address}:${module.database.port}/postgres?sslmode=require"
  database_revision  = module.database_password.password_version
  storage_class      = true

  # Nodes to run on and drivers of volumes, not the API alone; and the password where it is sent to.
  depends_on = [module.cluster, module.database]
}

module "release" {
  source = "../../modules/release"

  namespace       = module.platform.namespace
  image           = { registry = module.registry.registry, repository = module.registry.prefix, tag = var.image_tag }
  database_secret = module.platform.database_secret
  host            = var.host
  http_host       = var.http_host
  values          = concat([file("${path.module}/values.yaml")], [for file in var.value_files : file(file)])
}
