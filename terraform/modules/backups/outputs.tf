output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.id
}

output "arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.this.arn
}

output "write_statements" {
  description = "What a service must be allowed (modules/service-role) to write backups and to read them back; it may delete none."
  value = [
    { actions = ["s3:GetBucketLocation", "s3:ListBucket"], resources = [aws_s3_bucket.this.arn] },
    { actions = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"], resources = ["${aws_s3_bucket.this.arn}/*"] },
    { actions = ["kms:Decrypt", "kms:GenerateDataKey"], resources = [var.kms_key_arn] },
  ]
}
