variable "name" {
  description = "Beginning of the bucket's name; AWS adds what makes it unique."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,34}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 36 lower-case letters, digits and hyphens."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts what is put in."
  type        = string
}

variable "keep_days" {
  description = "Days after which a backup is deleted."
  type        = number
  default     = 90

  validation {
    condition     = var.keep_days >= 7
    error_message = "A week at least."
  }
}

variable "keep_deleted_days" {
  description = "Days for which what was deleted or overwritten can be had back."
  type        = number
  default     = 30

  validation {
    condition     = var.keep_deleted_days >= 1
    error_message = "A day at least."
  }
}

variable "lock_days" {
  description = "Days for which nobody deletes a backup but who has s3:BypassGovernanceRetention; 0: no lock. Only for a new bucket."
  type        = number
  default     = 0

  validation {
    condition     = var.lock_days >= 0 && var.lock_days <= var.keep_days
    error_message = "0 to keep_days."
  }
}

variable "force_destroy" {
  description = "Whether the bucket may be deleted with all backups in it."
  type        = bool
  default     = false
}
