variable "prefix" {
  description = "What stands before each service's name: repositories are PREFIX/SERVICE."
  type        = string
  default     = "echomesh"

  validation {
    condition     = can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", var.prefix))
    error_message = "Lower-case letters and digits, with single separators."
  }
}

variable "services" {
  description = "Services that have an image."
  type        = set(string)
  default     = ["auth", "embeddings", "gateway", "memory", "models", "routing"]

  validation {
    condition     = length(var.services) > 0
    error_message = "Name a service at least."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the images."
  type        = string
}

variable "keep_images" {
  description = "Newest images of each service that are kept; older ones cannot be rolled back to."
  type        = number
  default     = 20

  validation {
    condition     = var.keep_images >= 2
    error_message = "Two at least: the one that runs and the one to go back to."
  }
}

variable "force_delete" {
  description = "Whether repositories may be deleted with images in them."
  type        = bool
  default     = false
}
