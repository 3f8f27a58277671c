# Groups of nodes on Bottlerocket: no shell, no package manager, a read-only root. Its GPU variant
# brings NVIDIA's driver and device plugin, so that nothing has to be installed for GPUs.

locals {
  ami_types = {
    x86_64 = { cpu = "BOTTLEROCKET_x86_64", gpu = "BOTTLEROCKET_x86_64_NVIDIA" }
    arm64  = { cpu = "BOTTLEROCKET_ARM_64", gpu = "BOTTLEROCKET_ARM_64_NVIDIA" }
  }
  gpu_label = { "nvidia.com/gpu.present" = "true" }
  gpu_taint = { key = "nvidia.com/gpu", value = "true", effect = "NO_SCHEDULE" }
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "node" {
  name_prefix        = "${var.name}-node-"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

# What a node itself does: join, and pull images. All else is the right of single service accounts.
resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodeMinimalPolicy"])

  role       = aws_iam_role.node.name
  policy_arn = "${local.policies}/${each.key}"
}

resource "aws_launch_template" "node" {
  for_each = var.node_groups

  name_prefix            = "${var.name}-${each.key}-"
  update_default_version = true

  # Pods are a hop further away than the node: they cannot ask for the node's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # The system's own disk.
  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      encrypted             = true
      volume_type           = "gp3"
      delete_on_termination = true
    }
  }

  # Images, logs and pods' scratch space.
  block_device_mappings {
    device_name = "/dev/xvdb"

    ebs {
      encrypted             = true
      volume_type           = "gp3"
      volume_size           = each.value.disk_gb
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]

    content {
      resource_type = tag_specifications.value
      tags          = { Name = "${var.name}-${each.key}" }
    }
  }
}

resource "aws_eks_node_group" "this" {
  for_each = var.node_groups

  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "${each.key}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = coalesce(each.value.subnet_ids, var.subnet_ids)
  instance_types         = each.value.instance_types
  capacity_type          = each.value.spot ? "SPOT" : "ON_DEMAND"
  ami_type               = local.ami_types[each.value.architecture][each.value.gpu ? "gpu" : "cpu"]
  labels                 = merge(each.value.gpu ? local.gpu_label : {}, each.value.labels)

  scaling_config {
    min_size     = each.value.min
    max_size     = each.value.max
    desired_size = coalesce(each.value.desired, each.value.min)
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  # What needs no GPU must not take a node that has one.
  dynamic "taint" {
    for_each = concat(each.value.gpu ? [local.gpu_taint] : [], each.value.taints)

    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = taint.value.effect
    }
  }

  lifecycle {
    create_before_destroy = true
    # An autoscaler's to change.
    ignore_changes = [scaling_config[0].desired_size]
  }

  # Without a network nodes would never be ready.
  depends_on = [aws_eks_addon.before_nodes, aws_iam_role_policy_attachment.node]
}
