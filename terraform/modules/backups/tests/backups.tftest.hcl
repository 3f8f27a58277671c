mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mesh-backups-1", id = "mesh-backups-1" }
  }
}

variables {
  name        = "mesh-backups"
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/x"
}

run "backups_are_private_encrypted_and_cannot_be_wiped_at_once" {
  assert {
    condition     = alltrue([aws_s3_bucket_public_access_block.this.block_public_acls, aws_s3_bucket_public_access_block.this.block_public_policy, aws_s3_bucket_public_access_block.this.ignore_public_acls, aws_s3_bucket_public_access_block.this.restrict_public_buckets])
    error_message = "Nothing may make the bucket public."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).kms_master_key_id == var.kms_key_arn
    error_message = "Objects are encrypted by the key given."
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled" && one(aws_s3_bucket_lifecycle_configuration.this.rule[0].noncurrent_version_expiration).noncurrent_days == 30
    error_message = "What is deleted can be had back for a month."
  }
  assert {
    condition     = data.aws_iam_policy_document.tls.statement[0].effect == "Deny" && one(data.aws_iam_policy_document.tls.statement[0].condition).variable == "aws:SecureTransport"
    error_message = "Calls without TLS are denied."
  }
  assert {
    condition     = !contains(flatten(output.write_statements[*].actions), "s3:DeleteObject") && !contains(flatten(output.write_statements[*].actions), "s3:DeleteObjectVersion")
    error_message = "Whoever writes backups deletes none."
  }
  assert {
    condition     = aws_s3_bucket.this.force_destroy == false && length(aws_s3_bucket_object_lock_configuration.this) == 0
    error_message = "A bucket with backups in it is not deleted; a lock is asked for."
  }
}

run "a_lock_holds_for_as_long_as_said" {
  command = plan

  variables {
    lock_days = 14
  }

  assert {
    condition     = aws_s3_bucket.this.object_lock_enabled && aws_s3_bucket_object_lock_configuration.this[0].rule[0].default_retention[0].days == 14
    error_message = "Backups are locked for two weeks."
  }
}

run "a_lock_beyond_the_end_is_refused" {
  command = plan

  variables {
    keep_days = 30
    lock_days = 31
  }

  expect_failures = [var.lock_days]
}
