# A password that stands in no plan and in no state: made by Secrets Manager and kept there. It is
# first stored and then read back, so that a run that breaks off in between leaves nothing that the
# next one cannot mend.

ephemeral "aws_secretsmanager_random_password" "new" {
  password_length = 40
  # It becomes part of an address.
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "this" {
  name_prefix             = "${var.name}-"
  description             = var.description
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_days
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id                = aws_secretsmanager_secret.this.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.new.random_password
  secret_string_wo_version = var.password_version
}

ephemeral "aws_secretsmanager_secret_version" "this" {
  secret_id = aws_secretsmanager_secret_version.this.secret_id
}
