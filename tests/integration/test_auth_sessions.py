"""Signing in, refreshing and signing out over gRPC: what AuthService promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import auth_pb2 as auth
from services.runtime.errors import AppError, Reason
from tests.support.auth_world import TENANT, AuthWorld, auth_world
from tests.support.postgres import FreshDatabase

PASSWORD = "correct horse battery"


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


async def _with_password(world: AuthWorld, username: str = "alice") -> str:
    """Make a user who can sign in; return their id."""
    request = admin.CreateUserRequest(request_id=username, username=username, password=PASSWORD)
    answer = await world.call("CreateUser", request, await world.token())
    return str(answer.user.id)


def _login(username: str = "alice", password: str = PASSWORD) -> auth.LoginRequest:
    return auth.LoginRequest(tenant=TENANT, username=username, password=password)


async def test_a_password_signs_in_and_the_token_names_its_user(world: AuthWorld) -> None:
    """Login gives a token that WhoAmI resolves to the user and their roles, for ten minutes."""
    user_id = await _with_password(world)
    tokens = (await world.call("Login", _login())).tokens

    me = await world.call("WhoAmI", auth.WhoAmIRequest(), tokens.access_token)

    assert (me.tenant_id, me.user_id) == (world.credentials["tenant_id"], user_id)
    assert list(me.roles) == ["user"]
    life_s = tokens.access_expires_at.seconds - world.clock.now().timestamp()
    assert life_s == 600
    assert me.expires_at == tokens.access_expires_at


@pytest.mark.parametrize(
    "request_",
    [
        _login(password="wrong password"),
        _login(username="nobody"),
        auth.LoginRequest(tenant="nowhere", username="alice", password=PASSWORD),
        _login(username="owner"),
    ],
    ids=["password", "user", "tenant", "user-without-password"],
)
async def test_a_wrong_login_never_says_what_was_wrong(
    world: AuthWorld, request_: auth.LoginRequest
) -> None:
    """Wrong tenant, user and password look alike."""
    await _with_password(world)

    error = await world.refused("Login", request_)

    assert (error.reason, error.message) == (
        Reason.CREDENTIALS_INVALID,
        "the credentials are not valid",
    )


async def test_failed_logins_are_slowed_down_for_that_account_only(world: AuthWorld) -> None:
    """After ten failures the account waits, with a hint how long; another account does not."""
    await _with_password(world)
    await _with_password(world, "bob")
    for _ in range(10):
        error = await world.refused("Login", _login(password="wrong password"))
        assert error.reason is Reason.CREDENTIALS_INVALID

    limited = await world.refused("Login", _login())
    await world.call("Login", _login("bob"))
    world.clock.advance(2.1)
    await world.call("Login", _login())

    assert limited.reason is Reason.LOGIN_RATE_LIMITED
    assert limited.retry_after_s == pytest.approx(2.0, abs=0.2)


async def test_guesses_at_the_same_time_are_counted_exactly(world: AuthWorld) -> None:
    """Twenty guesses at once get no more than ten tries, on any number of connections."""
    await _with_password(world)

    errors = await asyncio.gather(
        *(world.refused("Login", _login(password=f"guess {n:04}")) for n in range(20))
    )

    reasons = [error.reason for error in errors]
    assert reasons.count(Reason.CREDENTIALS_INVALID) == 10
    assert reasons.count(Reason.LOGIN_RATE_LIMITED) == 10


async def test_an_attacker_elsewhere_cannot_lock_the_owner_out(world: AuthWorld) -> None:
    """Failures from one network do not count for another."""
    await _with_password(world)
    for _ in range(30):
        with pytest.raises(AppError):
            await world.parts.sessions.login(TENANT, "alice", "wrong one", "ipv4:203.0.113.9:1")

    assert (await world.call("Login", _login())).tokens.access_token


async def test_a_key_signs_in_as_its_user(world: AuthWorld) -> None:
    """Bootstrap's key has all roles of the first user."""
    me = await world.call("WhoAmI", auth.WhoAmIRequest(), await world.token())

    assert me.user_id == world.credentials["user_id"]
    assert list(me.roles) == ["admin", "app", "operator", "user"]


@pytest.mark.parametrize("damage", ["", "x", "em_0123456789abcdef_" + "A" * 43])
async def test_a_wrong_key_is_refused(world: AuthWorld, damage: str) -> None:
    """A damaged, unknown or malformed key is CREDENTIALS_INVALID."""
    text = damage or world.credentials["api_key"][:-4] + "AAAA"

    error = await world.refused("ExchangeApiKey", auth.ExchangeApiKeyRequest(api_key=text))

    assert error.reason is Reason.CREDENTIALS_INVALID


async def test_an_application_acts_for_its_users(world: AuthWorld) -> None:
    """The user is made on first use; the same external id is the same user for ever."""
    token = await world.token("app_key")
    request = auth.ExchangeTokenRequest(external_user_id="alice@app")

    answers = await asyncio.gather(*(world.call("ExchangeToken", request, token) for _ in range(5)))
    me = await world.call("WhoAmI", auth.WhoAmIRequest(), answers[0].tokens.access_token)

    assert {answer.user_id for answer in answers} == {me.user_id}
    assert list(me.roles) == ["user"]


async def test_only_an_application_may_act_for_others(world: AuthWorld) -> None:
    """A user's token does not make other users; no token at all says so."""
    await _with_password(world)
    token = (await world.call("Login", _login())).tokens.access_token
    request = auth.ExchangeTokenRequest(external_user_id="eve")

    assert (await world.refused("ExchangeToken", request, token)).reason is Reason.PERMISSION_DENIED
    assert (await world.refused("ExchangeToken", request)).reason is Reason.TOKEN_MISSING


def _refresh(token: str, request_id: str = "r1") -> auth.RefreshRequest:
    return auth.RefreshRequest(refresh_token=token, request_id=request_id)


async def test_a_refresh_token_is_exchanged_for_new_tokens(world: AuthWorld) -> None:
    """Each refresh gives a token that works and a successor that can be exchanged."""
    tokens = await world.sign_in()
    for number in range(3):
        world.clock.advance(500)
        tokens = (await world.call("Refresh", _refresh(tokens.refresh_token, f"r{number}"))).tokens

        await world.call("WhoAmI", auth.WhoAmIRequest(), tokens.access_token)


async def test_a_repeated_refresh_gives_a_new_successor(world: AuthWorld) -> None:
    """A client that lost the answer asks again with the same id, and both answers work once."""
    old = (await world.sign_in()).refresh_token
    lost = (await world.call("Refresh", _refresh(old))).tokens
    world.clock.advance(59)
    kept = (await world.call("Refresh", _refresh(old))).tokens

    await world.call("Refresh", _refresh(kept.refresh_token, "r2"))
    late = await world.refused("Refresh", _refresh(lost.refresh_token, "r3"))

    assert lost.refresh_token != kept.refresh_token
    assert late.reason is Reason.REFRESH_TOKEN_REUSED


@pytest.mark.parametrize(
    ("request_id", "later_s", "successor_used"),
    [("other", 1, False), ("r1", 61, False), ("r1", 1, True)],
    ids=["other-request", "too-late", "successor-used"],
)
async def test_any_other_reuse_revokes_the_family(
    world: AuthWorld, request_id: str, later_s: float, successor_used: bool
) -> None:
    """A used token with another id, after 60 s, or behind a used successor ends all of them."""
    old = (await world.sign_in()).refresh_token
    newest = (await world.call("Refresh", _refresh(old))).tokens.refresh_token
    if successor_used:
        newest = (await world.call("Refresh", _refresh(newest, "r2"))).tokens.refresh_token
    world.clock.advance(later_s)

    reused = await world.refused("Refresh", _refresh(old, request_id))
    after = await world.refused("Refresh", _refresh(newest, "r9"))

    assert reused.reason is Reason.REFRESH_TOKEN_REUSED
    assert after.reason is Reason.REFRESH_TOKEN_REUSED


async def test_two_refreshes_at_once_leave_one_family_of_working_tokens(world: AuthWorld) -> None:
    """The same request twice at the same time is a repeat, not a reuse."""
    old = (await world.sign_in()).refresh_token

    both = await asyncio.gather(*(world.call("Refresh", _refresh(old)) for _ in range(2)))

    await world.call("Refresh", _refresh(both[0].tokens.refresh_token, "r2"))


async def test_an_expired_or_unknown_refresh_token_is_refused(world: AuthWorld) -> None:
    """Thirty days unused is too long; junk is invalid."""
    old = (await world.sign_in()).refresh_token
    world.clock.advance(30 * 86400 + 1)

    expired = await world.refused("Refresh", _refresh(old))
    unknown = await world.refused("Refresh", _refresh(f"er_{'a' * 36}_{'b' * 43}"))
    junk = await world.refused("Refresh", _refresh("junk"))

    assert expired.reason is Reason.TOKEN_EXPIRED
    assert (unknown.reason, junk.reason) == (Reason.TOKEN_INVALID, Reason.TOKEN_INVALID)


async def test_logout_ends_the_family_and_is_idempotent(world: AuthWorld) -> None:
    """After logout no token of that sign-in can be exchanged; others are not touched."""
    mine, other = await world.sign_in(), await world.sign_in()
    successor = (await world.call("Refresh", _refresh(mine.refresh_token))).tokens.refresh_token
    for _ in range(2):
        await world.call("Logout", auth.LogoutRequest(refresh_token=mine.refresh_token))
    await world.call("Logout", auth.LogoutRequest(refresh_token="junk"))

    error = await world.refused("Refresh", _refresh(successor, "r2"))
    await world.call("Refresh", _refresh(other.refresh_token))

    assert error.reason is Reason.TOKEN_INVALID


async def test_the_key_set_is_public_and_holds_no_private_part(world: AuthWorld) -> None:
    """GetJwks needs no token and shows Ed25519 public keys only."""
    answer = await world.call("GetJwks", auth.GetJwksRequest())

    (key,) = json.loads(answer.jwks_json)["keys"]
    assert (key["kty"], key["crv"], "d" in key) == ("OKP", "Ed25519", False)


async def test_a_token_expires(world: AuthWorld) -> None:
    """After ten minutes an access token is refused as expired."""
    token = await world.token()
    world.clock.advance(601)

    error = await world.refused("WhoAmI", auth.WhoAmIRequest(), token)

    assert error.reason is Reason.TOKEN_EXPIRED


async def test_a_key_revoked_while_it_is_exchanged_signs_nobody_in(
    world: AuthWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its refresh tokens would outlive it."""
    store, operator = world.parts.store, await world.token()
    find = store.api_key

    async def find_then_revoke(key_id: str) -> object:
        found = await find(key_id)
        monkeypatch.undo()
        await world.call("RevokeApiKey", admin.RevokeApiKeyRequest(id=key_id), operator)
        return found

    monkeypatch.setattr(store, "api_key", find_then_revoke)
    request = auth.ExchangeApiKeyRequest(api_key=world.credentials["app_key"])
    refused = await world.refused("ExchangeApiKey", request)
    assert refused.reason is Reason.CREDENTIALS_INVALID
