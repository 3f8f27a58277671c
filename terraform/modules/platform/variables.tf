variable "name" {
  description = "Name of the release."
  type        = string
  default     = "echomesh-platform"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$", var.name))
    error_message = "A name has up to 40 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "namespace" {
  description = "Namespace of the mesh; it is made if it is missing."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace)) && var.namespace != "default"
    error_message = "A namespace of its own: the mesh's policies and rights end at its border."
  }
}

variable "database_admin_url" {
  description = "Address of a PostgreSQL role that may create databases and roles. It is written to a Secret, and kept in no state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^postgres(ql)?://[^,{}\\\\]+$", var.database_admin_url))
    error_message = "Say postgresql://USER:PASSWORD@HOST:PORT/DATABASE, without commas, braces and backslashes (percent-encode them)."
  }
}

variable "database_revision" {
  description = "A higher number sends database_admin_url again, after its password has changed."
  type        = number
  default     = 1

  validation {
    condition     = var.database_revision >= 1 && floor(var.database_revision) == var.database_revision
    error_message = "A whole number from 1 on."
  }
}

variable "storage_class" {
  description = "Whether to make the class `echomesh-gp3`, encrypted volumes of AWS' EBS driver."
  type        = bool
  default     = false
}
