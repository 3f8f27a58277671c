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
  default     = "echomesh"

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
