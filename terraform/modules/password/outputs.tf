output "value" {
  description = "The password, for write-only arguments and ephemeral variables."
  value       = ephemeral.aws_secretsmanager_secret_version.this.secret_string
  ephemeral   = true
}

output "password_version" {
  description = "Its version, which tells what holds a copy that there is a new one."
  value       = aws_secretsmanager_secret_version.this.secret_string_wo_version
}

output "secret_arn" {
  description = "The secret in Secrets Manager, for people with the right to read it."
  value       = aws_secretsmanager_secret.this.arn
}
