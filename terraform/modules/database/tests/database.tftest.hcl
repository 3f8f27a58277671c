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
}

variables {
  name                      = "mesh"
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b"]
  client_security_group_ids = { nodes = "sg-nodes" }
  kms_key_arn               = "arn:aws:kms:eu-central-1:111122223333:key/x"
  instance_class            = "db.m7g.xlarge"
  password                  = "not-in-the-plan"
}

run "the_database_is_encrypted_private_and_hard_to_lose" {
  command = plan

  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == var.kms_key_arn && aws_db_instance.this.performance_insights_kms_key_id == var.kms_key_arn
    error_message = "Storage and insights must be encrypted by the key given."
  }
  assert {
    condition     = !aws_db_instance.this.publicly_accessible
    error_message = "No address outside."
  }
  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.backup_retention_period == 14
    error_message = "A standby, a snapshot at the end and two weeks of backups are the default."
  }
  assert {
    condition     = contains([for parameter in aws_db_parameter_group.this.parameter : "${parameter.name}=${parameter.value}"], "rds.force_ssl=1") && aws_db_parameter_group.this.family == "postgres17"
    error_message = "Connections without TLS must be refused."
  }
  assert {
    condition     = contains([for parameter in aws_db_parameter_group.this.parameter : "${parameter.name}=${parameter.value}"], "log_parameter_max_length=0")
    error_message = "What people said must not stand in the log."
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.this) == ["nodes"] && aws_vpc_security_group_ingress_rule.this["nodes"].referenced_security_group_id == "sg-nodes" && aws_vpc_security_group_ingress_rule.this["nodes"].cidr_ipv4 == null
    error_message = "Groups that are named connect, and no address range does."
  }
}

run "the_password_stands_in_no_plan" {
  command = plan

  variables {
    password_version = 2
  }

  assert {
    condition     = aws_db_instance.this.password_wo == null && aws_db_instance.this.password == null
    error_message = "The password must be write-only."
  }
  assert {
    condition     = aws_db_instance.this.password_wo_version == 2
    error_message = "A new version sends it anew."
  }
}

run "plain_connections_no_backups_and_unknown_sizes_are_refused" {
  command = plan

  variables {
    backup_days    = 0
    engine_version = "15"
    instance_class = "m7g.xlarge"
    max_storage_gb = 50
    parameters     = { "rds.force_ssl" = "0" }
    username       = "postgres"
  }

  expect_failures = [var.backup_days, var.engine_version, var.instance_class, var.max_storage_gb, var.parameters, var.username]
}
