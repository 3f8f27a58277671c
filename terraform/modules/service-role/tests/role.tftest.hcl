mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  name              = "mesh-backup"
  oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/ABC"
  namespace         = "echomesh"
  service_account   = "echomesh-backup"
  statements        = [{ actions = ["s3:PutObject"], resources = ["arn:aws:s3:::bucket/*"] }]
}

run "one_service_account_and_no_other_may_take_the_role" {
  command = plan

  assert {
    condition = toset([for condition in data.aws_iam_policy_document.trust.statement[0].condition : "${condition.test} ${condition.variable} ${join(",", condition.values)}"]) == toset([
      "StringEquals oidc.eks.eu-central-1.amazonaws.com/id/ABC:sub system:serviceaccount:echomesh:echomesh-backup",
      "StringEquals oidc.eks.eu-central-1.amazonaws.com/id/ABC:aud sts.amazonaws.com",
    ])
    error_message = "The trust must name account and audience, and match no pattern."
  }
  assert {
    condition     = data.aws_iam_policy_document.this.statement[0].actions == toset(["s3:PutObject"]) && length(aws_iam_role_policy.this) == 1
    error_message = "It may do what was said."
  }
}

run "a_role_without_rights_has_no_policy_and_long_names_fit" {
  command = plan

  variables {
    name       = "a-production-mesh-with-a-name-that-goes-on-and-on"
    statements = []
  }

  assert {
    condition     = length(aws_iam_role_policy.this) == 0
    error_message = "An empty policy is no policy."
  }
  assert {
    condition     = length(aws_iam_role.this.name_prefix) == 38
    error_message = "AWS takes 38 characters."
  }
}

run "all_of_a_service_is_too_much" {
  command = plan

  variables {
    statements = [{ actions = ["s3:*"], resources = ["arn:aws:s3:::bucket"] }]
  }

  expect_failures = [var.statements]
}

run "all_resources_are_too_much" {
  command = plan

  variables {
    statements = [{ actions = ["s3:GetObject"], resources = ["*"] }]
  }

  expect_failures = [var.statements]
}

run "patterns_are_refused" {
  command = plan

  variables {
    namespace       = "*"
    service_account = "echomesh-*"
  }

  expect_failures = [var.namespace, var.service_account]
}
