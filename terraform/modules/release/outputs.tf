output "name" {
  description = "Name of the release."
  value       = helm_release.this.name
}

output "namespace" {
  description = "Namespace of the release."
  value       = helm_release.this.namespace
}

output "values" {
  description = "All values that the chart gets, as YAML, the later ones over the earlier ones."
  value       = helm_release.this.values
}

output "first_key" {
  description = "The command that shows the first user's API key."
  value       = "kubectl --namespace ${var.namespace} get secret ${var.name}-credentials -o jsonpath='{.data.api_key}' | base64 -d"
}
