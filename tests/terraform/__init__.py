"""The Terraform modules: their own tests, a mock cloud, and a scanner."""
