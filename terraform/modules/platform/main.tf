# What the chart echomesh takes by name: the database's Secret and, on AWS, a class of encrypted
# volumes. A release of its own, so that what stands between it and the mesh (Qdrant) can use it.

resource "helm_release" "this" {
  name             = var.name
  namespace        = var.namespace
  create_namespace = true
  chart            = "${path.module}/chart"
  max_history      = 3

  values = [yamlencode({
    databaseSecret = local.database_secret
    storageClass   = { enabled = var.storage_class }
  })]

  # Write-only: it goes to the cluster, and stands in no plan and no state.
  set_wo          = [{ name = "databaseUrl", value = var.database_admin_url, type = "string" }]
  set_wo_revision = var.database_revision
}

locals {
  database_secret = { name = "${var.name}-database-admin", key = "url" }
}
