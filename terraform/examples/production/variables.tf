variable "region" {
  description = "AWS region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Say a region, as eu-central-1."
  }
}

variable "name" {
  description = "Name of the environment and the beginning of its parts' names."
  type        = string
  default     = "echomesh-production"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 24 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "tags" {
  description = "Tags of all resources, beside the example's own."
  type        = map(string)
  default     = {}
}

variable "api_cidrs" {
  description = "Addresses from which you administer the cluster, as [\"203.0.113.7/32\"]; none: Terraform must run inside the VPC."
  type        = list(string)
}

variable "cidr" {
  description = "IPv4 range of the VPC."
  type        = string
  default     = "10.20.0.0/16"
}

variable "admins" {
  description = "ARNs of IAM roles or users that administer the cluster, by a name of your own; none: whoever makes it."
  type        = map(string)
  default     = {}
}

variable "kubernetes_version" {
  description = "Kubernetes' minor version."
  type        = string
  default     = "1.35"
}

variable "namespace" {
  description = "Namespace of the release."
  type        = string
  default     = "echomesh"
}

variable "image_tag" {
  description = "Tag of the services' images, which must have been pushed."
  type        = string
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
  description = "Further values of the chart, files of YAML (docs/kubernetes.md)."
  type        = list(string)
  default     = []
}

variable "database_password_version" {
  description = "A higher number gives the database's administrator a new password."
  type        = number
  default     = 1
}

variable "gpu" {
  description = "Nodes with GPUs for models of your own: `model` is a folder or a name that vLLM loads; models' image must then be built on vLLM's (docs/kubernetes.md)."
  type = object({
    model          = string
    nodes          = optional(number, 1)
    instance_types = optional(list(string), ["g6.xlarge", "g5.xlarge"])
  })
  default = null

  validation {
    condition     = var.gpu == null || try(var.gpu.nodes >= 1, false)
    error_message = "A node at least."
  }
}

variable "service_statements" {
  description = "What single services may do in AWS, by service: lists of {actions, resources}."
  type        = map(list(object({ actions = list(string), resources = list(string) })))
  default     = {}

  validation {
    condition     = alltrue([for service in keys(var.service_statements) : contains(["auth", "embeddings", "gateway", "memory", "models", "routing"], service)])
    error_message = "Services are auth, embeddings, gateway, memory, models and routing."
  }
}

variable "qdrant_chart_version" {
  description = "Version of Qdrant's chart, which is that of its server."
  type        = string
  default     = "1.18.2"
}
