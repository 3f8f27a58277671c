variable "name" {
  description = "Name of the release."
  type        = string
  default     = "echomesh"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$", var.name))
    error_message = "A name has up to 40 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "namespace" {
  description = "Namespace of the release, with the Secret; it is made if it is missing."
  type        = string
  default     = "echomesh"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace)) && var.namespace != "default"
    error_message = "A namespace of its own: the release's policies and rights end at its border."
  }
}

variable "chart" {
  description = "The chart: a folder, an archive or an OCI address; this repository's own by default."
  type        = string
  default     = null
}

variable "image" {
  description = "Where images come from: REGISTRY/REPOSITORY/SERVICE:TAG; what is not said is the chart's default."
  type = object({
    registry   = optional(string)
    repository = optional(string)
    tag        = optional(string)
  })
  default = {}

  validation {
    condition     = var.image.tag != "latest"
    error_message = "`latest` names another image tomorrow: say a version."
  }
}

variable "database_secret" {
  description = "Secret in the namespace with the address of a PostgreSQL role that may create databases and roles: modules/platform makes one, and so does CloudNativePG (NAME-superuser, key uri)."
  type        = object({ name = string, key = string })
}

variable "service_roles" {
  description = "IAM roles of services (modules/service-role), by service."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.service_roles) : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/", arn))])
    error_message = "Say ARNs of IAM roles."
  }
}

variable "qdrant" {
  description = "A Qdrant server, as http://qdrant.echomesh:6334. Without one memory has one replica with an index of its own."
  type = object({
    url            = string
    api_key_secret = optional(object({ name = string, key = string }))
  })
  default = null

  validation {
    condition     = var.qdrant == null || can(regex("^https?://[^/]+:[0-9]+$", var.qdrant.url))
    error_message = "Say SCHEME://HOST:PORT, of its gRPC port."
  }
}

variable "host" {
  description = "The one name by which SDKs reach the mesh from outside; how they get there (Gateway or Ingress) is said in `values`."
  type        = string
  default     = null
}

variable "http_host" {
  description = "The one by which OpenAI clients and browsers reach the gateway; a name of its own."
  type        = string
  default     = null

  validation {
    condition     = var.http_host == null || var.http_host != var.host
    error_message = "gRPC and HTTP cannot share a name."
  }
}

variable "values" {
  description = "Further values of the chart as YAML, later ones over earlier ones (docs/kubernetes.md)."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for text in var.values : can(yamldecode(text))])
    error_message = "Values are YAML."
  }
}

variable "timeout_seconds" {
  description = "How long an install or upgrade may take until all pods are ready."
  type        = number
  default     = 900

  validation {
    condition     = var.timeout_seconds >= 60
    error_message = "A minute at least."
  }
}
