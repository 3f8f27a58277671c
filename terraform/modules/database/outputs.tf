output "address" {
  description = "Name of the host."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Port of the server."
  value       = aws_db_instance.this.port
}

output "username" {
  description = "The administrator."
  value       = aws_db_instance.this.username
}

output "arn" {
  description = "ARN of the instance."
  value       = aws_db_instance.this.arn
}
