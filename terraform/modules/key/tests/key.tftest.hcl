mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  name        = "mesh"
  description = "A mesh"
}

run "a_key_turns_over_and_can_be_had_back_for_a_month" {
  command = plan

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_kms_key.this.deletion_window_in_days == 30
    error_message = "The key must rotate, and its deletion must be slow."
  }
  assert {
    condition     = aws_kms_alias.this.name == "alias/mesh"
    error_message = "The alias must be the name."
  }
  assert {
    condition     = length(data.aws_iam_policy_document.this.statement) == 1
    error_message = "Nobody but the account may use it unless asked for."
  }
}

run "log_groups_of_this_account_alone_may_use_it" {
  command = plan

  variables {
    for_logs = true
  }

  assert {
    condition     = data.aws_iam_policy_document.this.statement[1].principals == toset([{ type = "Service", identifiers = toset(["logs.eu-central-1.amazonaws.com"]) }])
    error_message = "The region's log service must be let in."
  }
  assert {
    condition     = one(data.aws_iam_policy_document.this.statement[1].condition).values == tolist(["arn:aws:logs:eu-central-1:111122223333:*"])
    error_message = "It must act for this account's log groups alone."
  }
}

run "quick_deletion_and_names_of_aws_are_refused" {
  command = plan

  variables {
    deletion_window_days = 3
    name                 = "aws/rds"
  }

  expect_failures = [var.deletion_window_days, var.name]
}
