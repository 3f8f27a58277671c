variable "kubeconfig" {
  description = "File that says how to reach the cluster."
  type        = string
  default     = "~/.kube/config"
}

variable "context" {
  description = "Context in that file; its current one by default."
  type        = string
  default     = null
}

variable "name" {
  description = "Name of the release."
  type        = string
  default     = "echomesh"
}

variable "namespace" {
  description = "Namespace of the release."
  type        = string
  default     = "echomesh"
}

variable "image" {
  description = "Where images come from: REGISTRY/REPOSITORY/SERVICE:TAG."
  type        = object({ registry = optional(string), repository = optional(string), tag = optional(string) })
  default     = {}
}

variable "database_admin_url" {
  description = "Address of a PostgreSQL role that may create databases and roles: TF_VAR_database_admin_url keeps it out of files."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = (var.database_admin_url == null) != (var.database_secret == null)
    error_message = "Say database_admin_url or database_secret, one of the two."
  }
}

variable "database_revision" {
  description = "A higher number sends database_admin_url again."
  type        = number
  default     = 1
}

variable "database_secret" {
  description = "Instead of database_admin_url: a Secret in the namespace, such as CloudNativePG's."
  type        = object({ name = string, key = string })
  default     = null
}

variable "qdrant" {
  description = "A Qdrant server, as {url = \"http://qdrant.databases:6334\"}."
  type        = object({ url = string, api_key_secret = optional(object({ name = string, key = string })) })
  default     = null
}

variable "host" {
  description = "The name by which SDKs reach the mesh from outside."
  type        = string
  default     = null
}

variable "http_host" {
  description = "The one by which OpenAI clients and browsers reach the gateway; a name of its own."
  type        = string
  default     = null
}

variable "value_files" {
  description = "Further values of the chart, files of YAML."
  type        = list(string)
  default     = []
}
