"""Sign-ins that cross a reset or a full queue, and names that cannot be stored."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import auth_pb2 as auth
from services.runtime.errors import AppError, Reason
from services.runtime.postgres import Database
from tests.support.auth_world import TENANT, AuthWorld, auth_world
from tests.support.postgres import FreshDatabase

PASSWORD = "correct horse battery"


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


async def _with_password(world: AuthWorld) -> str:
    """Make a user who can sign in; return their id."""
    request = admin.CreateUserRequest(request_id="alice", username="alice", password=PASSWORD)
    answer = await world.call("CreateUser", request, await world.token())
    return str(answer.user.id)


def _login(password: str = PASSWORD) -> auth.LoginRequest:
    return auth.LoginRequest(tenant=TENANT, username="alice", password=password)


async def test_an_old_password_begins_no_session_after_it_was_reset(
    world: AuthWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset that commits while the old password is being checked ends that sign-in too."""
    user_id, operator = await _with_password(world), await world.token()
    passwords = world.parts.passwords
    verify = passwords.verify

    async def verify_then_reset(password_hash: str | None, password: str) -> bool:
        fits = await verify(password_hash, password)
        monkeypatch.undo()
        reset = admin.SetPasswordRequest(user_id=user_id, password="another password")
        await world.call("SetPassword", reset, operator)
        return fits

    monkeypatch.setattr(passwords, "verify", verify_then_reset)
    refused = await world.refused("Login", _login())

    assert refused.reason is Reason.CREDENTIALS_INVALID
    await world.call("Login", _login(password="another password"))


async def test_a_login_refused_for_want_of_room_is_no_failed_login(
    world: AuthWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is refused, the next one with the right password is looked at at once."""
    await _with_password(world)
    for _ in range(9):
        await world.refused("Login", _login(password="wrong password"))

    async def full(password_hash: str | None, password: str) -> bool:
        raise AppError(Reason.OVERLOADED, "too many logins at once", retry_after_s=1.0)

    monkeypatch.setattr(world.parts.passwords, "verify", full)
    for _ in range(5):
        assert (await world.refused("Login", _login())).reason is Reason.OVERLOADED
    monkeypatch.undo()

    # The tenth failure is the first after which one waits: nine were counted and no more.
    wrong = await world.refused("Login", _login(password="wrong password"))
    limited = await world.refused("Login", _login())
    assert (wrong.reason, limited.reason) == (
        Reason.CREDENTIALS_INVALID,
        Reason.LOGIN_RATE_LIMITED,
    )
    world.clock.advance(2.1)
    await world.call("Login", _login())


async def test_a_flood_of_logins_that_finds_no_room_locks_nobody_out(world: AuthWorld) -> None:
    """Sixty right passwords at once: some sign in, some are OVERLOADED, none is a failure."""
    await _with_password(world)

    async def attempt() -> Reason | None:
        try:
            await world.parts.sessions.login(TENANT, "alice", PASSWORD, f"ipv4:10.0.0.{next(n)}:1")
        except AppError as error:
            return error.reason
        return None

    n = itertools.count(1)
    outcomes = await asyncio.gather(*(attempt() for _ in range(60)))

    assert set(outcomes) == {None, Reason.OVERLOADED}
    owner = Database(world.database.owner("auth"), name="test")
    async with owner.transaction() as connection:
        assert await connection.fetchval("select count(*) from auth.login_failures") == 0
    await owner.close()


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Login", auth.LoginRequest(tenant="a\0b", username="alice", password=PASSWORD)),
        ("Login", auth.LoginRequest(tenant=TENANT, username="a\0b", password=PASSWORD)),
        ("ExchangeToken", auth.ExchangeTokenRequest(external_user_id="a\0b")),
        ("RevokeApiKey", admin.RevokeApiKeyRequest(id="a\0b")),
        ("RotateSigningKey", admin.RotateSigningKeyRequest(request_id="a\0b")),
        ("CreateUser", admin.CreateUserRequest(request_id="r", username="a\0b")),
    ],
)
async def test_a_character_that_cannot_be_stored_is_the_callers_mistake(
    world: AuthWorld, method: str, request_: Message
) -> None:
    """Postgres keeps no NUL: INVALID_REQUEST, and no INTERNAL for somebody to look into."""
    error = await world.refused(method, request_, await world.token())

    assert error.reason is Reason.INVALID_REQUEST
