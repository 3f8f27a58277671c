# The mesh on a Kubernetes cluster that is there already, of whatever maker: no cloud's resources.

terraform {
  required_version = ">= 1.11"

  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.1"
    }
  }
}

provider "helm" {
  kubernetes = {
    config_path    = var.kubeconfig
    config_context = var.context
  }
}

# The Secret with the database's address, unless there is one.
module "platform" {
  source = "../../modules/platform"
  count  = var.database_secret == null ? 1 : 0

  name               = "${var.name}-platform"
  namespace          = var.namespace
  database_admin_url = var.database_admin_url
  database_revision  = var.database_revision
}

module "release" {
  source = "../../modules/release"

  name            = var.name
  namespace       = var.namespace
  image           = var.image
  database_secret = coalesce(var.database_secret, one(module.platform[*].database_secret))
  qdrant          = var.qdrant
  host            = var.host
  http_host       = var.http_host
  values          = [for file in var.value_files : file(file)]

  depends_on = [module.platform]
}
