output "repositories" {
  description = "Where to push each service's image."
  value       = module.registry.repository_urls
}

output "kubeconfig" {
  description = "The command that lets kubectl reach the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.cluster.name}"
}

output "first_key" {
  description = "The command that shows the first user's API key."
  value       = module.release.first_key
}

output "backups_bucket" {
  description = "Bucket for backups."
  value       = module.backups.bucket
}

output "backup_role_arn" {
  description = "IAM role of the service account echomesh-backup."
  value       = module.backup_role.arn
}

output "nat_addresses" {
  description = "Addresses from which the mesh calls language models outside."
  value       = module.network.nat_addresses
}

output "values" {
  description = "All values that the chart gets."
  value       = module.release.values
}
