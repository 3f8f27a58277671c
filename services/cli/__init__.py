"""The `echomesh` command."""
