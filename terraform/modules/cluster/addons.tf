# What runs in every cluster. The network and the proxy must be there before nodes, the rest needs
# nodes to run on.

resource "aws_eks_addon" "before_nodes" {
  for_each = { for name, addon in var.addons : name => addon if addon.before_nodes }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = each.value.version
  configuration_values        = each.value.configuration
  service_account_role_arn    = try(module.addon_role[each.key].arn, null)
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

resource "aws_eks_addon" "on_nodes" {
  for_each = { for name, addon in var.addons : name => addon if !addon.before_nodes }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = each.value.version
  configuration_values        = each.value.configuration
  service_account_role_arn    = try(module.addon_role[each.key].arn, null)
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.this]
}

module "addon_role" {
  source   = "../service-role"
  for_each = { for name, addon in var.addons : name => addon.role if addon.role != null }

  name                = "${var.name}-${each.key}"
  oidc_provider_arn   = aws_iam_openid_connect_provider.this.arn
  namespace           = "kube-system"
  service_account     = each.value.service_account
  managed_policy_arns = ["${local.policies}/${each.value.policy}"]
}
