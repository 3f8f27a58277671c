# A mesh for 1,000 people (docs/sizing.md): three zones, a NAT gateway in each, a database with a
# standby, Qdrant, keys apart for cluster and data, and GPUs if asked for.

data "aws_availability_zones" "this" {
  state = "available"

  # No local zones: neither EKS nor RDS has all its parts there.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

module "cluster_key" {
  source = "../../modules/key"

  name        = "${var.name}-cluster"
  description = "Kubernetes' Secrets, images and logs of ${var.name}"
  for_logs    = true
}

# What people said: whoever administers the cluster needs no right to it.
module "data_key" {
  source = "../../modules/key"

  name        = "${var.name}-data"
  description = "Database and backups of ${var.name}"
  for_logs    = true
}

module "network" {
  source = "../../modules/network"

  name               = var.name
  cidr               = var.cidr
  availability_zones = slice(data.aws_availability_zones.this.names, 0, 3)
  nat                = "per_zone"
  kms_key_arn        = module.cluster_key.arn
}

module "cluster" {
  source = "../../modules/cluster"

  name               = var.name
  kubernetes_version = var.kubernetes_version
  subnet_ids         = module.network.private_subnet_ids
  kms_key_arn        = module.cluster_key.arn
  api_cidrs          = var.api_cidrs
  creator_is_admin   = length(var.admins) == 0
  admins             = var.admins

  node_groups = merge(
    {
      mesh = {
        instance_types = ["c6a.xlarge", "c6i.xlarge", "c7i.xlarge"]
        min            = 4
        max            = 8
      }
    },
    var.gpu == null ? {} : {
      gpu = {
        instance_types = var.gpu.instance_types
        min            = var.gpu.nodes
        max            = var.gpu.nodes + 1
        disk_gb        = 200
        gpu            = true
      }
    },
  )
}

module "database_password" {
  source = "../../modules/password"

  name             = "${var.name}-database"
  description      = "Administrator of the database of ${var.name}"
  kms_key_arn      = module.data_key.arn
  password_version = var.database_password_version
}

module "database" {
  source = "../../modules/database"

  name                      = var.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.data_subnet_ids
  client_security_group_ids = { nodes = module.cluster.security_group_id }
  kms_key_arn               = module.data_key.arn
  instance_class            = "db.m7g.xlarge"
  storage_gb                = 100
  max_storage_gb            = 1000
  password                  = module.database_password.value
  password_version          = module.database_password.password_version
}

module "registry" {
  source = "../../modules/registry"

  prefix      = var.name
  kms_key_arn = module.cluster_key.arn
}

module "backups" {
  source = "../../modules/backups"

  name        = "${var.name}-backups"
  kms_key_arn = module.data_key.arn
  lock_days   = 14
}
