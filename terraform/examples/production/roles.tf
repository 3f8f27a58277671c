# What each service may do in AWS: nothing, but for those named here.

# Of the backups' account: the chart's own, or whatever writes dumps and exports to the bucket.
module "backup_role" {
  source = "../../modules/service-role"

  name              = "${var.name}-backup"
  oidc_provider_arn = module.cluster.oidc_provider_arn
  namespace         = var.namespace
  service_account   = "echomesh-backup"
  statements        = module.backups.write_statements
}

# Such as models that read their weights from a bucket.
module "service_role" {
  source   = "../../modules/service-role"
  for_each = var.service_statements

  name              = "${var.name}-${each.key}"
  oidc_provider_arn = module.cluster.oidc_provider_arn
  namespace         = var.namespace
  service_account   = "echomesh-${each.key}"
  statements        = each.value
}
