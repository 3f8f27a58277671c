# Qdrant by its makers' chart, a server in each zone. Its API key is made in the cluster and stays there.
resource "helm_release" "qdrant" {
  name             = "qdrant"
  namespace        = var.namespace
  create_namespace = true
  repository       = "https://qdrant.github.io/qdrant-helm"
  chart            = "qdrant"
  version          = var.qdrant_chart_version
  max_history      = 5
  timeout          = 600

  values = [file("${path.module}/qdrant.yaml")]

  # The class of its volumes.
  depends_on = [module.platform]
}
