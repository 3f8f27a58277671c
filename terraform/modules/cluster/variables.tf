variable "name" {
  description = "Name of the cluster and the beginning of its parts' names."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 24 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes' minor version; the chart needs 1.30."
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.(3[0-9]|4[0-9])$", var.kubernetes_version))
    error_message = "Say a minor version from 1.30 on, as 1.35."
  }
}

variable "subnet_ids" {
  description = "Private subnets of nodes and of the API's network interfaces, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "EKS needs subnets in two zones."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts Kubernetes' Secrets and the cluster's log; its policy lets the region's `logs` service use it."
  type        = string
}

variable "api_cidrs" {
  description = "Addresses outside the VPC from which the cluster's API is reached; none: only from the VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : can(cidrnetmask(cidr))])
    error_message = "Say IPv4 ranges, as 203.0.113.7/32."
  }

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, false)])
    error_message = "The API is for networks that you know: /8 or narrower, never the whole internet."
  }
}

variable "creator_is_admin" {
  description = "Whether whoever makes the cluster administers it. Without it name them in `admins`."
  type        = bool
  default     = true
}

variable "admins" {
  description = "ARNs of IAM roles or users that administer the cluster, by a name of your own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.admins) : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "Say ARNs of IAM roles or users."
  }
}

variable "log_days" {
  description = "Days that the API's log, audit included, is kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 731, 1096], var.log_days)
    error_message = "CloudWatch keeps logs 30, 60, 90, 180, 365, 400, 731 or 1096 days."
  }
}

variable "node_groups" {
  description = <<-TEXT
    Groups of nodes, by name.
    - `instance_types`: the first that is to be had is taken.
    - `min`, `max`, `desired`: nodes; `desired` is `min` at the start, and an autoscaler's afterwards.
    - `disk_gb`: for images and scratch space.
    - `architecture`: `x86_64` or `arm64`; images must have been built for it.
    - `gpu`: NVIDIA GPUs. Nodes get the label `nvidia.com/gpu.present=true` and a taint that keeps off what asks for no GPU.
    - `spot`: spare capacity, cheaper and taken away at two minutes' notice. Not for memory's edge index.
    - `subnet_ids`: instead of the cluster's, say one zone for volumes that live in one.
    - `labels`, `taints`: further ones.
  TEXT
  type = map(object({
    instance_types = list(string)
    min            = number
    max            = number
    desired        = optional(number)
    disk_gb        = optional(number, 50)
    architecture   = optional(string, "x86_64")
    gpu            = optional(bool, false)
    spot           = optional(bool, false)
    subnet_ids     = optional(list(string))
    labels         = optional(map(string), {})
    taints         = optional(list(object({ key = string, value = string, effect = string })), [])
  }))

  validation {
    condition     = anytrue([for group in values(var.node_groups) : !group.gpu && group.min > 0])
    error_message = "One group without GPUs must have a node: the mesh's own services run there."
  }

  validation {
    condition = alltrue([
      for group in values(var.node_groups) :
      group.min >= 0 && group.max >= max(group.min, 1) && coalesce(group.desired, group.min) >= group.min && coalesce(group.desired, group.min) <= group.max
    ])
    error_message = "0 <= min <= desired <= max, and max is 1 at least."
  }

  validation {
    condition     = alltrue([for group in values(var.node_groups) : contains(["arm64", "x86_64"], group.architecture)])
    error_message = "An architecture is x86_64 or arm64."
  }

  validation {
    condition     = alltrue([for group in values(var.node_groups) : group.disk_gb >= (group.gpu ? 100 : 20)])
    error_message = "A node needs 20 GB for images, one with a GPU 100 GB: vLLM's image alone has over 10."
  }

  validation {
    condition     = alltrue([for group in values(var.node_groups) : length(group.instance_types) > 0])
    error_message = "Name the instance types of every group."
  }

  validation {
    condition = alltrue(flatten([
      for group in values(var.node_groups) :
      [for taint in group.taints : contains(["NO_EXECUTE", "NO_SCHEDULE", "PREFER_NO_SCHEDULE"], taint.effect)]
    ]))
    error_message = "A taint's effect is NO_SCHEDULE, NO_EXECUTE or PREFER_NO_SCHEDULE."
  }
}

variable "addons" {
  description = <<-TEXT
    EKS add-ons, by AWS's names.
    - `version`: none is EKS' default for the cluster's version.
    - `configuration`: JSON, as the add-on's own schema has it.
    - `before_nodes`: made before there are nodes, as networks must be.
    - `role`: an AWS-managed policy for one of its service accounts in kube-system.
  TEXT
  type = map(object({
    version       = optional(string)
    configuration = optional(string)
    before_nodes  = optional(bool, false)
    role          = optional(object({ service_account = string, policy = string }))
  }))
  default = {
    vpc-cni = {
      before_nodes = true
      # Without it the chart's NetworkPolicies would be words only.
      configuration = "{\"enableNetworkPolicy\":\"true\"}"
      role          = { service_account = "aws-node", policy = "AmazonEKS_CNI_Policy" }
    }
    kube-proxy = { before_nodes = true }
    coredns    = {}
    aws-ebs-csi-driver = {
      role = { service_account = "ebs-csi-controller-sa", policy = "service-role/AmazonEBSCSIDriverPolicy" }
    }
    metrics-server = {}
  }
}
