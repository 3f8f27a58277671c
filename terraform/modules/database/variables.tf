variable "name" {
  description = "Name of the instance and the beginning of its parts' names."
  type        = string

  validation {
    condition     = can(regex("^[a-z]([a-z0-9]|-[a-z0-9]){1,39}$", var.name))
    error_message = "A name has 2 to 40 lower-case letters, digits and single hyphens, and begins with a letter."
  }
}

variable "vpc_id" {
  description = "VPC of the database."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets in two zones at least, best those without a route out."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "RDS needs subnets in two zones."
  }
}

variable "client_security_group_ids" {
  description = "Security groups that may connect, by a name of your own."
  type        = map(string)
}

variable "kms_key_arn" {
  description = "Key that encrypts storage, backups, insights and logs; its policy lets the region's `logs` service use it."
  type        = string
}

variable "engine_version" {
  description = "PostgreSQL's major version; minor ones come by themselves."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["16", "17", "18"], var.engine_version)
    error_message = "Say a major version, 16 to 18."
  }
}

variable "instance_class" {
  description = "Size of the instance (docs/sizing.md)."
  type        = string

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.instance_class))
    error_message = "A class begins with db., as db.m7g.xlarge."
  }
}

variable "storage_gb" {
  description = "Storage at the start."
  type        = number
  default     = 50

  validation {
    condition     = var.storage_gb >= 20
    error_message = "gp3 begins at 20 GB."
  }
}

variable "max_storage_gb" {
  description = "What storage may grow to by itself."
  type        = number
  default     = 500

  validation {
    condition     = var.max_storage_gb >= var.storage_gb * 1.1
    error_message = "RDS wants a tenth more than storage_gb at least."
  }
}

variable "multi_az" {
  description = "A standby in another zone, which takes over in a minute or two."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "Days to any second of which the database can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 7 && var.backup_days <= 35
    error_message = "7 to 35 days."
  }
}

variable "deletion_protection" {
  description = "Whether an order to delete the instance is refused."
  type        = bool
  default     = true
}

variable "final_snapshot" {
  description = "Whether deleting the instance leaves a snapshot."
  type        = bool
  default     = true
}

variable "apply_immediately" {
  description = "Whether changes that restart the instance happen at once, and not in the weekly window."
  type        = bool
  default     = false
}

variable "username" {
  description = "The administrator, who makes the mesh's roles; the services have roles of their own."
  type        = string
  default     = "mesh_admin"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.username)) && !contains(["admin", "postgres", "rdsadmin"], var.username)
    error_message = "Lower-case letters, digits and underscores, and none of RDS' own: admin, postgres, rdsadmin."
  }
}

variable "password" {
  description = "The administrator's password (modules/password)."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "password_version" {
  description = "Version of the password: a higher number sends it to the database anew."
  type        = number
  default     = 1

  validation {
    condition     = var.password_version >= 1 && floor(var.password_version) == var.password_version
    error_message = "A whole number from 1 on."
  }
}

variable "parameters" {
  description = "Further PostgreSQL parameters, over the module's own."
  type        = map(string)
  default     = {}

  validation {
    condition     = lookup(var.parameters, "rds.force_ssl", "1") == "1"
    error_message = "Connections without TLS stay refused."
  }
}

variable "log_days" {
  description = "Days that the database's log is kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 731, 1096], var.log_days)
    error_message = "CloudWatch keeps logs 30, 60, 90, 180, 365, 400, 731 or 1096 days."
  }
}
