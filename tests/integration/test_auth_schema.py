"""The schema itself: no table without forced row-level security, no row across tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from echomesh.auth.v1 import auth_pb2 as auth
from services.auth.pruning import prune
from services.runtime.errors import Reason
from services.runtime.postgres import Database
from tests.support.auth_world import AuthWorld, auth_world
from tests.support.postgres import FreshDatabase


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


@pytest_asyncio.fixture
async def app(world: AuthWorld) -> AsyncIterator[Database]:
    database = Database(world.database.app("auth"), name="test")
    yield database
    await database.close()


async def test_every_table_forces_row_level_security(app: Database) -> None:
    """All tables but the migrations' own have FORCE and a policy."""
    async with app.transaction() as connection:
        open_tables = await connection.fetch(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = 'auth' and c.relkind = 'r' and c.relname <> 'schema_migrations' "
            "and not (c.relforcerowsecurity and exists "
            "(select from pg_policy p where p.polrelid = c.oid))"
        )

    assert open_tables == []


@pytest.mark.parametrize(
    "table", ["tenants", "users", "api_keys", "refresh_families", "refresh_tokens", "requests"]
)
async def test_without_a_tenant_no_row_shows(world: AuthWorld, app: Database, table: str) -> None:
    """The application role sees nothing until it says for whom, and nothing of another."""
    await world.sign_in()
    count = f"select count(*) from auth.{table}"
    async with app.transaction() as connection:
        nobody = await connection.fetchval(count)
        await connection.execute("select set_config('app.tenant_id', 'another', true)")
        another = await connection.fetchval(count)

    assert (nobody, another) == (0, 0)


async def test_a_row_cannot_be_written_into_another_tenant(app: Database, world: AuthWorld) -> None:
    """WITH CHECK refuses a foreign tenant_id."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction() as connection:
            await connection.execute("select set_config('app.tenant_id', 'another', true)")
            await connection.execute(
                "insert into auth.users (tenant_id, id, roles, created_at) "
                "values ($1, 'u', '{user}', now())",
                world.credentials["tenant_id"],
            )


async def test_pruning_forgets_what_has_expired_and_nothing_else(world: AuthWorld) -> None:
    """Expired families and old failures go; a fresh sign-in stays."""
    await world.refused("Login", auth.LoginRequest(tenant="t", username="u", password="p" * 8))
    old = await world.sign_in()
    world.clock.advance(timedelta(days=98).total_seconds())
    fresh = await world.sign_in()
    jobs, owner = (
        Database(dsn, name="test")
        for dsn in (world.database.jobs("auth"), world.database.owner("auth"))
    )

    await prune(jobs, world.clock)

    async with owner.transaction() as connection:
        families = await connection.fetchval("select count(*) from auth.refresh_families")
        tokens = await connection.fetchval("select count(*) from auth.refresh_tokens")
        failures = await connection.fetchval("select count(*) from auth.login_failures")
    await jobs.close()
    await owner.close()
    request = auth.RefreshRequest(refresh_token=old.refresh_token, request_id="r")
    gone = await world.refused("Refresh", request)
    await world.call(
        "Refresh", auth.RefreshRequest(refresh_token=fresh.refresh_token, request_id="r")
    )

    assert (families, tokens, failures) == (1, 1, 0)
    assert gone.reason is Reason.TOKEN_INVALID
