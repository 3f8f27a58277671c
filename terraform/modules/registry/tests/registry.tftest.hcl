mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_partition" {
    defaults = { dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
}

variables {
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/x"
}

run "every_service_has_a_repository_as_the_chart_expects" {
  command = plan

  assert {
    condition     = toset([for repository in aws_ecr_repository.this : repository.name]) == toset([for service in var.services : "echomesh/${service}"])
    error_message = "The chart asks for REPOSITORY/SERVICE."
  }
  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE" && repository.image_scanning_configuration[0].scan_on_push && repository.encryption_configuration[0].kms_key == var.kms_key_arn])
    error_message = "Tags never move, images are scanned and encrypted."
  }
  assert {
    condition     = output.registry == "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
    error_message = "The registry is the host of the repositories."
  }
  assert {
    condition     = jsondecode(aws_ecr_lifecycle_policy.this["auth"].policy).rules[0].selection.countNumber == 20
    error_message = "Twenty images are kept."
  }
}

run "without_an_image_to_go_back_to_it_is_refused" {
  command = plan

  variables {
    keep_images = 1
  }

  expect_failures = [var.keep_images]
}
