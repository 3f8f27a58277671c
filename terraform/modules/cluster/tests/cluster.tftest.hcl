mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/x" }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/ABC" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_eks_cluster" {
    defaults = {
      identity              = [{ oidc = [{ issuer = "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC" }] }]
      certificate_authority = [{ data = "Zm9v" }]
    }
  }
}

variables {
  name        = "mesh"
  subnet_ids  = ["subnet-a", "subnet-b"]
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/x"
  node_groups = {
    mesh = { instance_types = ["c6a.xlarge"], min = 3, max = 6 }
    gpu  = { instance_types = ["g6.xlarge"], min = 0, max = 2, disk_gb = 200, gpu = true }
    arm  = { instance_types = ["c7g.xlarge"], min = 0, max = 1, architecture = "arm64", spot = true, subnet_ids = ["subnet-a"] }
  }
}

run "the_api_is_private_and_its_secrets_are_encrypted" {
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "Nobody outside reaches the API unless named."
  }
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"]) && aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == var.kms_key_arn
    error_message = "Secrets must be encrypted by the key given."
  }
  assert {
    condition     = contains(aws_eks_cluster.this.enabled_cluster_log_types, "audit") && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
    error_message = "The audit log must be written, and encrypted."
  }
  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API"
    error_message = "Access is by entries that are seen, not by a ConfigMap."
  }

  # Nodes: no credentials for pods, encrypted disks, the images that fit.
  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "Pods must not get the node's credentials."
  }
  assert {
    condition     = alltrue(flatten([for template in aws_launch_template.node : [for device in template.block_device_mappings : device.ebs[0].encrypted == "true"]]))
    error_message = "All disks are encrypted."
  }
  assert {
    condition     = { for name, group in aws_eks_node_group.this : name => group.ami_type } == { arm = "BOTTLEROCKET_ARM_64", gpu = "BOTTLEROCKET_x86_64_NVIDIA", mesh = "BOTTLEROCKET_x86_64" }
    error_message = "Every group has the image of its hardware."
  }
  assert {
    condition     = one(aws_eks_node_group.this["gpu"].taint) == { key = "nvidia.com/gpu", value = "true", effect = "NO_SCHEDULE" } && aws_eks_node_group.this["gpu"].labels == tomap({ "nvidia.com/gpu.present" = "true" })
    error_message = "GPU nodes carry the label and the taint that values-production.yaml selects."
  }
  assert {
    condition     = length(aws_eks_node_group.this["mesh"].taint) == 0 && aws_eks_node_group.this["arm"].capacity_type == "SPOT" && aws_eks_node_group.this["arm"].subnet_ids == toset(["subnet-a"])
    error_message = "Groups are as asked for."
  }
  assert {
    condition     = aws_eks_node_group.this["mesh"].scaling_config[0].desired_size == 3
    error_message = "A group begins with its least."
  }

  # Add-ons: the network enforces policies, before there are nodes.
  assert {
    condition     = keys(aws_eks_addon.before_nodes) == ["kube-proxy", "vpc-cni"] && keys(aws_eks_addon.on_nodes) == ["aws-ebs-csi-driver", "coredns", "metrics-server"]
    error_message = "What nodes need comes first."
  }
  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "The chart's NetworkPolicies must be enforced."
  }
  assert {
    condition     = aws_eks_addon.before_nodes["vpc-cni"].service_account_role_arn == module.addon_role["vpc-cni"].arn && aws_eks_addon.on_nodes["coredns"].service_account_role_arn == null
    error_message = "An add-on's rights are its own account's, not the nodes'."
  }
  assert {
    condition     = toset([for attachment in aws_iam_role_policy_attachment.node : attachment.policy_arn]) == toset(["arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly", "arn:aws:iam::aws:policy/AmazonEKSWorkerNodeMinimalPolicy"])
    error_message = "Nodes may join and pull, and nothing else."
  }
}

run "named_networks_and_named_people_get_in" {
  variables {
    api_cidrs        = ["203.0.113.7/32"]
    creator_is_admin = false
    admins           = { platform = "arn:aws:iam::111122223333:role/platform" }
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.7/32"])
    error_message = "The network named gets in, and no other."
  }
  assert {
    condition     = aws_eks_access_entry.admin["platform"].principal_arn == "arn:aws:iam::111122223333:role/platform" && endswith(aws_eks_access_policy_association.admin["platform"].policy_arn, "/AmazonEKSClusterAdminPolicy") && !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "The role named administers, and whoever made the cluster does not."
  }
}

run "the_whole_internet_old_versions_and_unknown_people_are_refused" {
  command = plan

  variables {
    admins             = { me = "me" }
    api_cidrs          = ["0.0.0.0/0"]
    kubernetes_version = "1.29"
  }

  expect_failures = [var.admins, var.api_cidrs, var.kubernetes_version]
}

run "gpus_alone_are_no_cluster" {
  command = plan

  variables {
    node_groups = { gpu = { instance_types = ["g6.xlarge"], min = 1, max = 1, disk_gb = 200, gpu = true } }
  }

  expect_failures = [var.node_groups]
}

run "a_group_that_begins_above_its_most_is_refused" {
  command = plan

  variables {
    node_groups = { mesh = { instance_types = ["c6a.xlarge"], min = 1, max = 2, desired = 3 } }
  }

  expect_failures = [var.node_groups]
}
