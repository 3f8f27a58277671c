"""Numbered SQL migrations, each applied once, in order, by one process at a time.

A file `NNNN_name.sql` may hold, among its first lines:

    -- compatible-from: N     the oldest release of the code (its newest migration's number) that
                              still works on the schema after this file; its own number if unset
    -- no-transaction         run it outside a transaction (CREATE INDEX CONCURRENTLY)
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

LOCK_WAIT_S = 120
"""Another replica's migrations may take this long before we give up on ours."""

LOCK_TIMEOUT_MS = 2_000
"""A statement waits this long for a table lock, so that traffic never queues up behind it."""

LOCK_ATTEMPTS = 10

_LOCK_CLASS = 0x6D696772
"""First key of the advisory lock ("migr"); the second is a hash of the service's name."""

_RETRY_PAUSE_S = 0.2

_CONNECT_PAUSE_S = 1.0

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+")
_COMPATIBLE_FROM = re.compile(r"^--\s*compatible-from:\s*(\d+)\s*$", re.MULTILINE)
_NO_TRANSACTION = re.compile(r"^--\s*no-transaction\s*$", re.MULTILINE)
_HEAD_CHARS = 500


class MigrationError(Exception):
    """The schema and the files do not fit together; the text is one line for the user."""


@dataclass(frozen=True)
class Migration:
    """One migration file."""

    version: int
    name: str
    sql: str
    sha256: str
    compatible_from: int
    in_transaction: bool


def load(folder: Path) -> list[Migration]:
    """Read the migrations of a folder in order.

    Raises:
        MigrationError: a badly named file, a number used twice, or a gap.

    """
    found = [_parse(path) for path in sorted(folder.glob("*.sql"))]
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise MigrationError(f"{migration.name}: expected migration number {expected:04d}")
    return found


def _parse(path: Path) -> Migration:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise MigrationError(f"{path.name} is not named NNNN_name.sql")
    sql = path.read_text(encoding="utf-8")
    version, head = int(match[1]), sql[:_HEAD_CHARS]
    compatible = _COMPATIBLE_FROM.search(head)
    return Migration(
        version=version,
        name=path.stem,
        sql=sql,
        sha256=hashlib.sha256(sql.encode()).hexdigest(),
        compatible_from=int(compatible[1]) if compatible else version,
        in_transaction=_NO_TRANSACTION.search(head) is None,
    )


async def migrate_service(name: str, dsn: str, folder: Path, *, wait_s: float = 0.0) -> list[str]:
    """Bring one service's schema up to date.

    Args:
        name: the service, which is also its schema.
        dsn: direct (not pooled) address of the schema's owner.
        folder: the service's `migrations` folder.
        wait_s: how long to wait for the server, the owner and the schema to be there.

    Returns:
        Names of the migrations that were applied now.

    Raises:
        MigrationError: the database cannot be used, an applied file has changed, or a lock could
            not be had.

    """
    migrations = load(folder)
    connection = await _connect(name, dsn, wait_s)
    try:
        await _take_lock(connection, name)
        async with connection.transaction():
            await connection.execute(_table_sql(name))
        waiting = await _waiting(connection, name, migrations)
        for migration in waiting:
            await _apply_with_retry(connection, name, migration)
        return [migration.name for migration in waiting]
    finally:
        await connection.close(timeout=5)  # frees the advisory lock too


async def _connect(name: str, dsn: str, wait_s: float) -> asyncpg.Connection:
    """Connect as the owner of a schema that is there, once that can be done."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + wait_s
    said = ""
    while True:
        try:
            return await _connect_once(name, dsn)
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            line = f"{name}: the database at {urlsplit(dsn).hostname} cannot be used: {why}"
            if loop.time() >= ends:
                raise MigrationError(line) from error
            if line != said:
                said = line
                sys.stderr.write(f"echomesh: waiting: {line}\n")
        await asyncio.sleep(_CONNECT_PAUSE_S)


async def _connect_once(name: str, dsn: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    if await connection.fetchval("select to_regnamespace($1)::text", name) is None:
        await connection.close(timeout=5)
        raise asyncpg.InvalidSchemaNameError(f"it has no schema {name}")
    return connection


async def check_schema(name: str, dsn: str, folder: Path) -> None:
    """Refuse a schema that this release of the code cannot work on.

    A schema newer than the code is fine as long as its `compatible-from` allows it.

    Raises:
        MigrationError: the schema needs a newer release; one line says so.

    """
    own = max((migration.version for migration in load(folder)), default=0)
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    try:
        async with connection.transaction(readonly=True):
            needed = await _needed_version(connection, name)
    finally:
        await connection.close(timeout=5)
    if needed > own:
        raise MigrationError(
            f"the database schema of {name} needs a newer release: it works with version "
            f"{needed} and later, this one has version {own}"
        )


async def _needed_version(connection: asyncpg.Connection, name: str) -> int:
    table = f"{name}.schema_migrations"
    if await connection.fetchval("select to_regclass($1)::text", table) is None:
        return 0
    sql = f'select coalesce(max(compatible_from), 0) from "{name}".schema_migrations'  # noqa: S608
    return int(await connection.fetchval(sql))


async def _take_lock(connection: asyncpg.Connection, name: str) -> None:
    second_key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], signed=True)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOCK_WAIT_S
    while not await connection.fetchval(
        "select pg_try_advisory_lock($1, $2)", _LOCK_CLASS, second_key
    ):
        if loop.time() > deadline:
            raise MigrationError(f"another process has been migrating {name} for {LOCK_WAIT_S} s")
        await asyncio.sleep(_RETRY_PAUSE_S)


def _table_sql(name: str) -> str:
    # Whoever serves requests may read what ran, and must not be able to change it.
    return f"""
        create table if not exists "{name}".schema_migrations (
            version int primary key,
            name text not null,
            sha256 text not null,
            compatible_from int not null,
            applied_at timestamptz not null default now()
        );
        revoke all on "{name}".schema_migrations from "{name}_app", "{name}_jobs";
        grant select on "{name}".schema_migrations to "{name}_app", "{name}_jobs";
        """


async def _waiting(
    connection: asyncpg.Connection, name: str, migrations: Sequence[Migration]
) -> list[Migration]:
    sql = f'select version, sha256 from "{name}".schema_migrations'  # noqa: S608 - our own name
    applied = {row["version"]: row["sha256"] for row in await connection.fetch(sql)}
    for migration in migrations:
        if applied.get(migration.version, migration.sha256) != migration.sha256:
            raise MigrationError(f"{name}: {migration.name} was changed after it was applied")
    return [migration for migration in migrations if migration.version not in applied]


async def _apply_with_retry(
    connection: asyncpg.Connection, name: str, migration: Migration
) -> None:
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            await _apply(connection, name, migration)
            return
        except asyncpg.LockNotAvailableError:
            if attempt == LOCK_ATTEMPTS:
                raise MigrationError(
                    f"{name}: {migration.name} got no lock in {LOCK_ATTEMPTS} attempts"
                ) from None
            await asyncio.sleep(_RETRY_PAUSE_S * attempt)


async def _apply(connection: asyncpg.Connection, name: str, migration: Migration) -> None:
    if not migration.in_transaction:
        await connection.execute(f"set lock_timeout = {LOCK_TIMEOUT_MS}")
        await connection.execute(migration.sql)
        await _record(connection, name, migration)
        return
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
        await connection.execute(migration.sql)
        await _record(connection, name, migration)


async def _record(connection: asyncpg.Connection, name: str, migration: Migration) -> None:
    await connection.execute(
        f'insert into "{name}".schema_migrations (version, name, sha256, compatible_from) '  # noqa: S608
        "values ($1, $2, $3, $4)",
        migration.version,
        migration.name,
        migration.sha256,
        migration.compatible_from,
    )
