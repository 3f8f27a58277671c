variable "name" {
  description = "Beginning of the secret's name; AWS adds what makes it unique."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9/_+=.@-]{1,64}$", var.name))
    error_message = "A name has up to 64 letters, digits and /_+=.@-."
  }
}

variable "description" {
  description = "Whose password it is."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that encrypts it."
  type        = string
}

variable "password_version" {
  description = "A higher number makes a new password."
  type        = number
  default     = 1

  validation {
    condition     = var.password_version >= 1 && floor(var.password_version) == var.password_version
    error_message = "A whole number from 1 on."
  }
}

variable "recovery_days" {
  description = "Days for which the deleted password can be had back; 0 deletes it at once."
  type        = number
  default     = 30

  validation {
    condition     = var.recovery_days == 0 || (var.recovery_days >= 7 && var.recovery_days <= 30)
    error_message = "0, or 7 to 30 days."
  }
}
