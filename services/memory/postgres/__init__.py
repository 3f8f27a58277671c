"""The store in Postgres: one module per part of the schema, every statement owner-scoped twice."""

from __future__ import annotations
