variable "name" {
  description = "Beginning of the role's name; it is cut at 38 characters."
  type        = string
}

variable "oidc_provider_arn" {
  description = "The cluster's OIDC provider in IAM."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:iam::[0-9]{12}:oidc-provider/.+$", var.oidc_provider_arn))
    error_message = "Say the ARN of an IAM OIDC provider."
  }
}

variable "namespace" {
  description = "Namespace of the service account."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "Say one namespace; patterns would let others in."
  }
}

variable "service_account" {
  description = "Name of the service account."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "Say one service account; patterns would let others in."
  }
}

variable "statements" {
  description = "What the service may do: actions on resources, both by name."
  type        = list(object({ actions = list(string), resources = list(string) }))
  default     = []

  validation {
    condition = alltrue(flatten([
      for statement in var.statements : [for action in statement.actions : can(regex("^[a-z0-9-]+:[A-Za-z]+\\*?$", action))]
    ]))
    error_message = "An action is SERVICE:ACTION; of one service all (`s3:*`) is too much."
  }

  validation {
    condition = alltrue(flatten([
      for statement in var.statements : [for resource in statement.resources : startswith(resource, "arn:")]
    ]))
    error_message = "A resource is an ARN; `*` is too much."
  }
}

variable "managed_policy_arns" {
  description = "Policies that exist already, such as AWS' own for an add-on."
  type        = list(string)
  default     = []
}

variable "permissions_boundary_arn" {
  description = "Policy that bounds what the role may ever do."
  type        = string
  default     = null
}
