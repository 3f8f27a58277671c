output "registry" {
  description = "Host of the registry, for `image.registry` of the chart."
  # Known before the repositories are, so that a plan shows the chart's values.
  value = "${data.aws_caller_identity.this.account_id}.dkr.ecr.${data.aws_region.this.name}.${data.aws_partition.this.dns_suffix}"
}

output "prefix" {
  description = "What stands before each service's name, for `image.repository` of the chart."
  value       = var.prefix
}

output "repository_urls" {
  description = "Where to push each service's image."
  value       = { for service, repository in aws_ecr_repository.this : service => repository.repository_url }
}
