"""What the roles of every service may do to its tables: no more than its code does."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

import services
from services.runtime.roles import SERVICES_WITH_SCHEMA
from tests.support.postgres import FreshDatabase

_PARTS = Path(services.__file__).parent

# Tables that a role may write, by service and kind of role; partitions are reached through their
# parents alone. Whoever adds a table says here who writes it.
WRITERS: dict[str, set[str]] = {
    "auth_app": {
        "tenants",
        "users",
        "api_keys",
        "refresh_families",
        "refresh_tokens",
        "requests",
        "signing_keys",
        "login_failures",
        "audit_log",
    },
    "auth_jobs": {"refresh_families", "requests", "login_failures"},
    "memory_app": {
        "conversations",
        "messages",
        "turns",
        "memories",
        "memory_versions",
        "memory_vectors",
        "terms",
        "speakers",
        "corpora",
        "outbox",
        "audit_log",
    },
    "memory_jobs": {
        "memories",
        "messages",
        "index_state",
        "memory_versions",
        "memory_vectors",
        "outbox",
        "terms",
        "speakers",
        "corpora",
    },
    "routing_app": set(),
    "routing_jobs": set(),
}

_WRITABLE = """
    select c.relname from pg_class c
    where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and (has_table_privilege($2::text, c.oid, 'insert, update, delete, truncate')
         or has_any_column_privilege($2::text, c.oid, 'insert, update'))
"""


def _services() -> list[str]:
    """Services that have a schema, and those that will once they have migrations."""
    return [name for name in SERVICES_WITH_SCHEMA if (_PARTS / name).is_dir()]


@pytest.mark.parametrize("kind", ["app", "jobs"])
@pytest.mark.parametrize("service", _services())
async def test_a_role_writes_only_the_tables_that_its_code_writes(
    fresh_database: FreshDatabase, service: str, kind: str
) -> None:
    """Above all not `schema_migrations`, by which a release knows whether it may run."""
    made = await fresh_database(service)
    role = f"{service}_{kind}"
    connection = await asyncpg.connect(made.owner(service))
    try:
        rows = await connection.fetch(_WRITABLE, service, role)
    finally:
        await connection.close()

    assert {row["relname"] for row in rows} - WRITERS.get(role, set()) == set()


@pytest.mark.parametrize("service", _services())
async def test_a_new_table_is_closed_until_a_migration_opens_it(
    fresh_database: FreshDatabase, service: str
) -> None:
    """No default gives rights that nobody thought about."""
    made = await fresh_database(service)
    connection = await asyncpg.connect(made.owner(service))
    try:
        await connection.execute(f'create table "{service}".fresh (x int)')
        open_to = [
            role
            for role in (f"{service}_app", f"{service}_jobs")
            if await connection.fetchval(
                "select has_table_privilege($1, $2, 'select, insert, update, delete')",
                role,
                f"{service}.fresh",
            )
        ]
    finally:
        await connection.close()

    assert open_to == []


@pytest.mark.parametrize("kind", ["app", "jobs"])
@pytest.mark.parametrize("service", _services())
async def test_every_role_may_read_which_migrations_ran(
    fresh_database: FreshDatabase, service: str, kind: str
) -> None:
    """A service checks at start whether it can work on the schema."""
    made = await fresh_database(service)
    connection = await asyncpg.connect(getattr(made, kind)(service))
    try:
        assert await connection.fetch("select version from schema_migrations") is not None
    finally:
        await connection.close()
