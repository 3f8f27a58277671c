mock_provider "helm" {}

variables {
  database_secret = { name = "db", key = "url" }
}

run "the_chart_gets_what_the_modules_know" {
  command = plan

  variables {
    image         = { registry = "registry.example", tag = "1.2.3" }
    host          = "mesh.example.com"
    http_host     = "chat.example.com"
    qdrant        = { url = "http://qdrant.echomesh.svc:6334", api_key_secret = { name = "qdrant-apikey", key = "api-key" } }
    service_roles = { memory = "arn:aws:iam::111122223333:role/memory", models = "arn:aws:iam::111122223333:role/models" }
    values        = ["logLevel: warning"]
  }

  assert {
    condition = yamldecode(helm_release.this.values[0]) == {
      database = { adminSecret = { name = "db", key = "url" } }
      image    = { registry = "registry.example", tag = "1.2.3" }
      public   = { host = "mesh.example.com", httpHost = "chat.example.com" }
      memory = {
        serviceAccountAnnotations = { "eks.amazonaws.com/role-arn" = "arn:aws:iam::111122223333:role/memory" }
        qdrant                    = { url = "http://qdrant.echomesh.svc:6334", apiKeySecret = { name = "qdrant-apikey", key = "api-key" } }
      }
      models = { serviceAccountAnnotations = { "eks.amazonaws.com/role-arn" = "arn:aws:iam::111122223333:role/models" } }
    }
    error_message = "Values are those of the inputs, and no more."
  }
  assert {
    condition     = helm_release.this.values[1] == "logLevel: warning" && helm_release.this.wait && endswith(helm_release.this.chart, "charts/echomesh")
    error_message = "Values given stand over them; this repository's chart is installed, and waited for."
  }
}

run "what_is_not_said_is_the_charts_default" {
  command = plan

  assert {
    condition     = yamldecode(helm_release.this.values[0]) == { database = { adminSecret = { name = "db", key = "url" } }, image = {} }
    error_message = "Nothing but the database's Secret is said."
  }
}

run "what_would_move_or_break_is_refused" {
  command = plan

  variables {
    host          = "mesh.example.com"
    http_host     = "mesh.example.com"
    image         = { tag = "latest" }
    qdrant        = { url = "qdrant" }
    service_roles = { memory = "memory" }
    values        = ["a: [unclosed"]
  }

  expect_failures = [var.http_host, var.image, var.qdrant, var.service_roles, var.values]
}
