"""Fixtures that several kinds of test share."""

pytest_plugins = ["tests.support.postgres", "tests.support.pooled"]
