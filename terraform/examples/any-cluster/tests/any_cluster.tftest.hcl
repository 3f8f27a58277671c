mock_provider "helm" {}

run "an_address_becomes_a_secret_that_the_chart_reads" {
  variables {
    database_admin_url = "postgresql://admin:secret@db.example:5432/postgres"
    value_files        = ["../small/values.yaml"]
  }

  assert {
    condition     = yamldecode(output.values[0]).database.adminSecret == { name = "echomesh-platform-database-admin", key = "url" }
    error_message = "The chart reads the Secret that the platform writes."
  }
  assert {
    condition     = yamldecode(output.platform_values[0]).databaseSecret.name == "echomesh-platform-database-admin" && !yamldecode(output.platform_values[0]).storageClass.enabled
    error_message = "The platform writes the Secret, and no class of AWS' volumes."
  }
  assert {
    condition     = yamldecode(output.values[1]).logLevel == "warning"
    error_message = "Files of values are the chart's."
  }
}

run "a_secret_that_is_there_is_used" {
  command = plan

  variables {
    database_secret = { name = "mesh-db-superuser", key = "uri" }
  }

  assert {
    condition     = yamldecode(output.values[0]).database.adminSecret == { name = "mesh-db-superuser", key = "uri" } && output.platform_values == null
    error_message = "Nothing is written, and the Secret is named."
  }
}

run "neither_address_nor_secret_is_refused" {
  command = plan

  expect_failures = [var.database_admin_url]
}
