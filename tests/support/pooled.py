"""Databases behind PgBouncer, and looks at what a transaction there sees.

Loaded by the root conftest; where the program is not installed, its tests say so and skip.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import asyncpg
import pytest
import pytest_asyncio

from services.memory.model import Owner
from services.runtime.postgres import Database
from tests.support.pgbouncer import Pooler, find_pgbouncer, running_pooler
from tests.support.postgres import FreshDatabase

SEEN = (
    "select pg_backend_pid() as pid, current_setting('app.tenant_id', true) as tenant, "
    "current_setting('app.user_id', true) as person, "
    "(select array_agg(distinct tenant_id || '/' || user_id) from memory.messages) as owners"
)
"""Where a transaction runs, as whom, and whose messages it can see at all."""


class MakePooler(Protocol):
    """Puts PgBouncer in front of a fresh database of the named services."""

    async def __call__(self, *names: str, pool_size: int = 1, migrate: bool = True) -> Pooler:
        """Start one; it ends with the test."""
        ...


@pytest.fixture
def pgbouncer_program() -> str:
    """The program, or the reason why nothing is tested here."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    return program


@pytest_asyncio.fixture
async def make_pooler(
    pgbouncer_program: str, fresh_database: FreshDatabase
) -> AsyncIterator[MakePooler]:
    """A maker of databases behind a pooler."""
    async with AsyncExitStack() as stack:

        async def make(*names: str, pool_size: int = 1, migrate: bool = True) -> Pooler:
            database = await fresh_database(*names, migrate=migrate)
            running = running_pooler(pgbouncer_program, database, pool_size)
            return await stack.enter_async_context(running)

        yield make


@pytest_asyncio.fixture
async def pooler(make_pooler: MakePooler) -> Pooler:
    """Memory's database, one server connection for each role."""
    return await make_pooler("memory")


@asynccontextmanager
async def pool_of(pooler: Pooler, **options: float) -> AsyncIterator[Database]:
    """Another client of the pooler, as memory's app role."""
    database = Database(pooler.database.app("memory"), name="other", **options)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.close()


def owner_id(owner: Owner) -> str:
    return f"{owner.tenant_id}/{owner.user_id}"


async def seen_by(database: Database, owner: Owner | None) -> asyncpg.Record:
    """What a transaction of `owner`, or of nobody, sees."""
    scope = database.transaction() if owner is None else database.tenant(owner)
    async with scope as connection:
        return await connection.fetchrow(SEEN)
