mock_provider "helm" {}

variables {
  namespace          = "echomesh"
  database_admin_url = "postgresql://mesh_admin:secret@db.example:5432/postgres?sslmode=require"
}

run "the_address_goes_to_the_cluster_and_into_no_state" {
  assert {
    condition     = helm_release.this.set_wo == null && helm_release.this.set_wo_revision == 1
    error_message = "The address must be write-only."
  }
  assert {
    condition     = strcontains(helm_release.this.values[0], "secret@") == false && yamldecode(helm_release.this.values[0]).databaseSecret == { name = "echomesh-platform-database-admin", key = "url" }
    error_message = "Values name the Secret, and say nothing of what is in it."
  }
  assert {
    condition     = output.database_secret == { name = "echomesh-platform-database-admin", key = "url" } && !yamldecode(helm_release.this.values[0]).storageClass.enabled
    error_message = "The release gets the Secret's name; volumes are somebody else's."
  }
}

run "an_address_that_helm_would_split_is_refused" {
  command = plan

  variables {
    database_admin_url = "postgresql://admin:a,b@db.example/postgres"
  }

  expect_failures = [var.database_admin_url]
}

run "the_default_namespace_is_refused" {
  command = plan

  variables {
    namespace = "default"
  }

  expect_failures = [var.namespace]
}
