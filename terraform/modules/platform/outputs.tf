output "namespace" {
  description = "Namespace of the mesh, once it is there."
  value       = helm_release.this.namespace
}

output "database_secret" {
  description = "Secret with the database's address, for `modules/release`."
  value       = local.database_secret
}

output "values" {
  description = "What the platform chart gets, but for the database's address, as YAML."
  value       = helm_release.this.values
}
