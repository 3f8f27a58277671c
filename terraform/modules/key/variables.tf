variable "name" {
  description = "Name of the key's alias, without `alias/`."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9/_-]{1,128}$", var.name)) && !startswith(var.name, "aws/")
    error_message = "A name has letters, digits, slashes, hyphens and underscores, and does not begin with aws/."
  }
}

variable "description" {
  description = "What the key encrypts, for people who read the list of keys."
  type        = string
}

variable "for_logs" {
  description = "Whether this account's CloudWatch log groups may be encrypted with it."
  type        = bool
  default     = false
}

variable "deletion_window_days" {
  description = "Days between the order to delete the key and its end, after which all it encrypted is lost."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_days >= 7 && var.deletion_window_days <= 30
    error_message = "KMS waits 7 to 30 days."
  }
}
