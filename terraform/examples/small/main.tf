# A mesh for up to 100 people in an AWS account of its own: two zones, one NAT gateway, a database
# without a standby, memory with its own index. What may be lost and what may not is said in
# docs/terraform.md.

data "aws_availability_zones" "this" {
  state = "available"

  # No local zones: neither EKS nor RDS has all its parts there.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

module "key" {
  source = "../../modules/key"

  name        = var.name
  description = "All data of the mesh ${var.name}"
  for_logs    = true
}

module "network" {
  source = "../../modules/network"

  name               = var.name
  availability_zones = slice(data.aws_availability_zones.this.names, 0, 2)
  nat                = "single"
  # By NAT: at this size endpoints cost more than what goes through them.
  interface_endpoints = []
  kms_key_arn         = module.key.arn
  flow_log_days       = 90
}

module "cluster" {
  source = "../../modules/cluster"

  name               = var.name
  kubernetes_version = var.kubernetes_version
  subnet_ids         = module.network.private_subnet_ids
  kms_key_arn        = module.key.arn
  api_cidrs          = var.api_cidrs
  log_days           = 90

  node_groups = {
    # Memory's index is a volume, and a volume lives in one zone: so do these nodes.
    mesh = {
      instance_types = ["m6a.large", "m6i.large", "m7i.large"]
      min            = 2
      max            = 3
      subnet_ids     = [module.network.private_subnet_ids[0]]
    }
  }
}

module "database_password" {
  source = "../../modules/password"

  name             = "${var.name}-database"
  description      = "Administrator of the database of ${var.name}"
  kms_key_arn      = module.key.arn
  password_version = var.database_password_version
}

module "database" {
  source = "../../modules/database"

  name                      = var.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.data_subnet_ids
  client_security_group_ids = { nodes = module.cluster.security_group_id }
  kms_key_arn               = module.key.arn
  instance_class            = "db.t4g.medium"
  multi_az                  = false
  log_days                  = 90
  password                  = module.database_password.value
  password_version          = module.database_password.password_version
}

module "registry" {
  source = "../../modules/registry"

  prefix      = var.name
  kms_key_arn = module.key.arn
}

module "backups" {
  source = "../../modules/backups"

  name        = "${var.name}-backups"
  kms_key_arn = module.key.arn
}

# Of the backups' account: the chart's own, or whatever writes dumps and exports to the bucket.
module "backup_role" {
  source = "../../modules/service-role"

  name              = "${var.name}-backup"
  oidc_provider_arn = module.cluster.oidc_provider_arn
  namespace         = var.namespace
  service_account   = "echomesh-backup"
  statements        = module.backups.write_statements
}
