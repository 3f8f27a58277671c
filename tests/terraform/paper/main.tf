# What a mesh has in AWS, made in a cloud of paper: `moto` answers as AWS would. It knows no add-ons
# and no access entries; the modules' own tests plan those.

# Where moto listens is said by AWS_ENDPOINT_URL.
provider "aws" {
  region            = "eu-central-1"
  s3_use_path_style = true
}

locals {
  name = "paper"
}

module "key" {
  source = "../../../terraform/modules/key"

  name        = local.name
  description = "Everything of ${local.name}"
  for_logs    = true
}

module "network" {
  source = "../../../terraform/modules/network"

  name               = local.name
  availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nat                = "per_zone"
  kms_key_arn        = module.key.arn
}

module "cluster" {
  source = "../../../terraform/modules/cluster"

  name        = local.name
  subnet_ids  = module.network.private_subnet_ids
  kms_key_arn = module.key.arn
  api_cidrs   = ["203.0.113.7/32"]
  addons      = {}

  node_groups = {
    mesh = { instance_types = ["c6a.xlarge"], min = 3, max = 6 }
    gpu  = { instance_types = ["g6.xlarge"], min = 0, max = 1, gpu = true, disk_gb = 200 }
  }
}

# moto's clusters have no security group of their own.
resource "aws_security_group" "nodes" {
  name        = "${local.name}-nodes"
  description = "Nodes"
  vpc_id      = module.network.vpc_id
}

module "password" {
  source = "../../../terraform/modules/password"

  name          = local.name
  description   = "Administrator of the database"
  kms_key_arn   = module.key.arn
  recovery_days = 0
}

module "database" {
  source = "../../../terraform/modules/database"

  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.data_subnet_ids
  client_security_group_ids = { nodes = aws_security_group.nodes.id }
  kms_key_arn               = module.key.arn
  instance_class            = "db.m7g.xlarge"
  password                  = module.password.value
  password_version          = module.password.password_version
  deletion_protection       = false
  final_snapshot            = false
}

module "registry" {
  source = "../../../terraform/modules/registry"

  kms_key_arn  = module.key.arn
  force_delete = true
}

module "backups" {
  source = "../../../terraform/modules/backups"

  name          = "${local.name}-backups"
  kms_key_arn   = module.key.arn
  force_destroy = true
}

module "backup_role" {
  source = "../../../terraform/modules/service-role"

  name              = "${local.name}-backup"
  oidc_provider_arn = module.cluster.oidc_provider_arn
  namespace         = "echomesh"
  service_account   = "echomesh-backup"
  statements        = module.backups.write_statements
}

output "bucket" {
  description = "Bucket for backups."
  value       = module.backups.bucket
}

output "cluster" {
  description = "Name of the cluster."
  value       = module.cluster.name
}

output "password_secret" {
  description = "Secret with the database's password."
  value       = module.password.secret_arn
}
