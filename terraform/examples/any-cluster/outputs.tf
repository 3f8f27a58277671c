output "first_key" {
  description = "The command that shows the first user's API key."
  value       = module.release.first_key
}

output "values" {
  description = "All values that the chart gets."
  value       = module.release.values
}

output "platform_values" {
  description = "What the platform chart gets, but for the database's address; null without one."
  value       = one(module.platform[*].values)
}
