# The chart echomesh, with the values that the other modules know; `var.values` stands over them.

locals {
  roles  = { for service, arn in var.service_roles : service => { serviceAccountAnnotations = { "eks.amazonaws.com/role-arn" = arn } } }
  qdrant = var.qdrant == null ? {} : { memory = { qdrant = { for key, value in { url = var.qdrant.url, apiKeySecret = var.qdrant.api_key_secret } : key => value if value != null } } }

  public = { for key, value in { host = var.host, httpHost = var.http_host } : key => value if value != null }

  values = merge(
    {
      database = { adminSecret = { name = var.database_secret.name, key = var.database_secret.key } }
      image    = { for key, value in var.image : key => value if value != null }
    },
    length(local.public) == 0 ? {} : { public = local.public },
    { for service in distinct(concat(keys(local.roles), keys(local.qdrant))) :
    service => merge(try(local.roles[service], {}), try(local.qdrant[service], {})) },
  )
}

resource "helm_release" "this" {
  name             = var.name
  namespace        = var.namespace
  create_namespace = true
  chart            = coalesce(var.chart, "${path.module}/../../../charts/echomesh")
  values           = concat([yamlencode(local.values)], var.values)

  # Pods are ready, or the run says that they are not. No `atomic`: it would take away the logs that
  # say why, and the first install with them.
  wait        = true
  timeout     = var.timeout_seconds
  max_history = 10
}
