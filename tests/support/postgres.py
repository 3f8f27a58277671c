"""A real PostgreSQL for tests: one server a session, a fresh database whenever one is wanted.

    async def test_something(fresh_database: FreshDatabase) -> None:
        database = await fresh_database("memory")          # roles, schema and migrations applied
        db = Database(database.app("memory"), name="test")

Load it with `pytest_plugins = ["tests.support.postgres"]` in the root conftest.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import Any, Protocol

import asyncpg
import pytest
import pytest_asyncio

import services
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.migrate import migrate_service
from services.runtime.roles import SERVICES_WITH_SCHEMA, RoleDsns

SERVICES_FOLDER = Path(services.__file__).parent
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - below it everything is in a folder of its own
# A server for each worker, each with a few hundred MB of logs and databases.
_ROOM_BYTES = 2 * 2**30


@dataclass(frozen=True)
class TestDatabase:
    """A database of one test, with the addresses of each service's roles."""

    __test__ = False

    name: str
    admin_dsn: str
    services: Mapping[str, RoleDsns]

    def app(self, service: str) -> str:
        """Address of the role that serves requests."""
        return self.services[service].app

    def jobs(self, service: str) -> str:
        """Address of the role that runs background work."""
        return self.services[service].jobs

    def owner(self, service: str) -> str:
        """Address of the role that owns the schema."""
        return self.services[service].owner


@dataclass
class PostgresServer:
    """The session's server."""

    embedded: EmbeddedPostgres
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def create_database(self, *names: str, migrate: bool = True) -> TestDatabase:
        """Make a database with roles and schemas of the named services (all when none is named)."""
        database = f"test_{os.getpid()}_{next(self._numbers)}"
        wanted = names or SERVICES_WITH_SCHEMA
        dsns = await self.embedded.provision(wanted, database)
        for name in wanted if migrate else ():
            folder = SERVICES_FOLDER / name / "migrations"
            await migrate_service(name, dsns[name].owner, folder)
        return TestDatabase(database, self.embedded.dsn("postgres", database), dsns)

    async def drop_database(self, database: TestDatabase) -> None:
        """Drop a database, whoever is still connected to it."""
        connection = await asyncpg.connect(self.embedded.admin_dsn)
        try:
            await connection.execute(f'drop database if exists "{database.name}" with (force)')
        finally:
            await connection.close()


class FreshDatabase(Protocol):
    """Makes a migrated database that is dropped after the test."""

    def __call__(self, *names: str, migrate: bool = True) -> Awaitable[TestDatabase]:
        """Make a database for the named services."""


def _in_own_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine away from pytest's event loop, and raise what it raises."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def roomy_memory() -> Path | None:
    """A folder in memory, where there is one with room; None is the usual place.

    A database is made and dropped for most tests, hundreds of files each: on a slow disk that
    takes longer than the tests. What a lost machine loses is not what they ask about.
    """
    if os.access(_SHARED_MEMORY, os.W_OK) and disk_usage(_SHARED_MEMORY).free > _ROOM_BYTES:
        return _SHARED_MEMORY
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """An embedded server that ends with the test session, however that ends."""
    with tempfile.TemporaryDirectory(prefix="echomesh-pg-", dir=roomy_memory()) as folder:
        embedded = EmbeddedPostgres(Path(folder) / "postgres")
        _in_own_loop(embedded.start())
        yield PostgresServer(embedded)
        _in_own_loop(embedded.stop())


@pytest_asyncio.fixture
async def fresh_database(postgres: PostgresServer) -> AsyncIterator[FreshDatabase]:
    """A maker of databases; those made are dropped after the test."""
    made: list[TestDatabase] = []

    async def make(*names: str, migrate: bool = True) -> TestDatabase:
        database = await postgres.create_database(*names, migrate=migrate)
        made.append(database)
        return database

    yield make
    for database in made:
        await postgres.drop_database(database)
