"""Auth behind PgBouncer in transaction mode: locks and settings end with their transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest_asyncio

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import auth_pb2 as auth
from services.auth.pruning import prune
from services.runtime.errors import Reason
from services.runtime.postgres import Database
from tests.support.auth_world import TENANT, AuthWorld, auth_world
from tests.support.pooled import MakePooler

PASSWORD = "correct horse battery"


@pytest_asyncio.fixture
async def auth_service(make_pooler: MakePooler, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    """Auth over gRPC with one pooled connection for each role."""
    pooler = await make_pooler("auth")
    async with auth_world(tmp_path, pooler.database) as made:
        yield made


async def _user(world: AuthWorld, username: str) -> auth.LoginRequest:
    """Make a user who can sign in."""
    request = admin.CreateUserRequest(request_id=username, username=username, password=PASSWORD)
    await world.call("CreateUser", request, await world.token())
    return auth.LoginRequest(tenant=TENANT, username=username, password=PASSWORD)


async def test_pgbouncer_sign_ins_renewals_and_sign_outs_at_once(auth_service: AuthWorld) -> None:
    """Passwords, keys, applications' users and renewals all work over one server connection."""
    world = auth_service
    logins = [await _user(world, f"user-{n}") for n in range(4)]
    app = await world.token("app_key")
    exchanges = [auth.ExchangeTokenRequest(external_user_id=f"external-{n % 3}") for n in range(6)]
    answers = await asyncio.gather(
        *(world.call("Login", login) for login in logins),
        *(world.call("ExchangeToken", each, app) for each in exchanges),
        *(world.call("ExchangeApiKey", _key(world)) for _ in range(6)),
    )
    assert len({answer.user_id for answer in answers[4:10]}) == 3
    renewed = await asyncio.gather(
        *(world.call("Refresh", _refresh(a.tokens.refresh_token, "r1")) for a in answers)
    )
    for answer in renewed:
        await world.call("WhoAmI", auth.WhoAmIRequest(), answer.tokens.access_token)
    last = renewed[0].tokens.refresh_token
    await world.call("Logout", auth.LogoutRequest(refresh_token=last))
    gone = await world.refused("Refresh", _refresh(last, "r2"))
    assert gone.reason is Reason.TOKEN_INVALID


def _key(world: AuthWorld) -> auth.ExchangeApiKeyRequest:
    return auth.ExchangeApiKeyRequest(api_key=world.credentials["api_key"])


def _refresh(token: str, request_id: str) -> auth.RefreshRequest:
    return auth.RefreshRequest(refresh_token=token, request_id=request_id)


async def test_pgbouncer_guesses_and_repeated_renewals_stay_exact(auth_service: AuthWorld) -> None:
    """Locks live inside their transaction: ten tries of twenty, and one family of tokens."""
    world = auth_service
    login = await _user(world, "alice")
    tokens = (await world.call("Login", login)).tokens
    both = await asyncio.gather(
        *(world.call("Refresh", _refresh(tokens.refresh_token, "r1")) for _ in range(2))
    )
    await world.call("Refresh", _refresh(both[0].tokens.refresh_token, "r2"))
    guesses = [auth.LoginRequest(tenant=TENANT, username="alice", password=f"guess {n:04}")
               for n in range(20)]  # fmt: skip
    errors = await asyncio.gather(*(world.refused("Login", guess) for guess in guesses))
    reasons = [error.reason for error in errors]
    assert reasons.count(Reason.CREDENTIALS_INVALID) == 10
    assert reasons.count(Reason.LOGIN_RATE_LIMITED) == 10


async def test_pgbouncer_auth_settings_end_with_their_transaction(auth_service: AuthWorld) -> None:
    """After lookups by tenant, name and key, the next transaction on the connection sees none."""
    world = auth_service
    await asyncio.gather(*(world.sign_in() for _ in range(4)))
    await world.parts.store.tenant_named(TENANT)
    database = Database(world.database.app("auth"), name="nobody")
    try:
        async with database.transaction() as connection:
            for table in ("users", "api_keys", "tenants", "refresh_families", "refresh_tokens"):
                sql = f"select count(*) from auth.{table}"
                assert await connection.fetchval(sql) == 0, table
    finally:
        await database.close()


async def test_pgbouncer_pruning_walks_tenants_over_the_jobs_address(
    auth_service: AuthWorld,
) -> None:
    """Expired sign-ins are forgotten, those in use stay."""
    world = auth_service
    old = await world.sign_in()
    world.clock.advance(timedelta(days=100).total_seconds())
    kept = await world.sign_in()
    jobs = Database(world.database.jobs("auth"), name="prune", max_size=1)
    try:
        await prune(jobs, world.clock)
    finally:
        await jobs.close()
    gone = await world.refused("Refresh", _refresh(old.refresh_token, "r1"))
    await world.call("Refresh", _refresh(kept.refresh_token, "r2"))
    assert gone.reason is Reason.TOKEN_INVALID
