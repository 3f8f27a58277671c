variable "name" {
  description = "Name of the VPC and the beginning of its parts' names."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 32 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "cidr" {
  description = "IPv4 range of the VPC, /16 to /20."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.cidr)) && can(regex("/(16|17|18|19|20)$", var.cidr))
    error_message = "The range must be IPv4, /16 to /20, so that every zone's subnets have room."
  }
}

variable "availability_zones" {
  description = "Two to six zones. EKS and RDS need two; three let quorums survive the loss of one."
  type        = list(string)

  validation {
    condition     = length(var.availability_zones) >= 2 && length(var.availability_zones) <= 6
    error_message = "Name two to six zones."
  }

  validation {
    condition     = length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "Name every zone once."
  }
}

variable "nat" {
  description = "NAT gateways for what private subnets fetch from the internet: `none`, `single` (one zone's loss cuts all off) or `per_zone`."
  type        = string
  default     = "per_zone"

  validation {
    condition     = contains(["none", "single", "per_zone"], var.nat)
    error_message = "Say none, single or per_zone."
  }
}

variable "interface_endpoints" {
  description = "AWS services reached inside the VPC. Without NAT nodes need all of `ec2`, `ecr.api`, `ecr.dkr`, `eks`, `sts`."
  type        = set(string)
  default     = ["ec2", "ecr.api", "ecr.dkr", "eks", "sts"]

  validation {
    condition     = !contains(var.interface_endpoints, "s3")
    error_message = "S3 has a gateway endpoint already, which is free."
  }

  validation {
    condition     = var.nat != "none" || length(setsubtract(["ec2", "ecr.api", "ecr.dkr", "eks", "sts"], var.interface_endpoints)) == 0
    error_message = "Without NAT nodes join only with endpoints for ec2, ecr.api, ecr.dkr, eks and sts."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the flow log; its policy lets the region's `logs` service use it."
  type        = string
}

variable "flow_log_traffic" {
  description = "What the flow log holds: `REJECT`, or `ALL` for an audit (much larger)."
  type        = string
  default     = "REJECT"

  validation {
    condition     = contains(["ACCEPT", "ALL", "REJECT"], var.flow_log_traffic)
    error_message = "Say ACCEPT, ALL or REJECT."
  }
}

variable "flow_log_days" {
  description = "Days that the flow log is kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 731, 1096], var.flow_log_days)
    error_message = "CloudWatch keeps logs 30, 60, 90, 180, 365, 400, 731 or 1096 days."
  }
}
