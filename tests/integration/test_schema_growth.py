"""A migration that runs while a mesh serves locks a table for a moment, however much it holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import services
from services.runtime.migrate import load
from tests.support.postgres import FreshDatabase

_PARTS = Path(services.__file__).parent
# How Postgres tells, at debug1, that it goes through a whole table while nobody else may use it.
_SCANS = ("verifying table", "rewriting table")


@pytest.mark.parametrize("service", ["auth", "memory"])
async def test_no_migration_reads_a_whole_table_under_an_exclusive_lock(
    fresh_database: FreshDatabase, service: str
) -> None:
    """The first one's tables are new and empty."""
    made = await fresh_database(service, migrate=False)
    connection = await asyncpg.connect(made.owner(service))
    said: list[str] = []

    def note(_: Any, message: asyncpg.PostgresLogMessage) -> None:
        said.append(message.message)

    async def scans() -> list[str]:
        """What was said of scans since the last time; listeners are called a turn later."""
        await connection.execute("select")
        await asyncio.sleep(0)
        found = [line for line in said if line.startswith(_SCANS)]
        said.clear()
        return found

    try:
        first, *later = load(_PARTS / service / "migrations")
        await connection.execute(first.sql)
        connection.add_log_listener(note)
        await connection.execute("set client_min_messages = debug1")
        await connection.execute("create table probe (x int)")
        await connection.execute("alter table probe add check (x > 0)")
        assert await scans(), "this Postgres says otherwise that it scans"
        for migration in later:
            await connection.execute(migration.sql)
            assert await scans() == [], migration.name
    finally:
        await connection.close()
