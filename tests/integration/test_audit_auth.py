"""Auth's audit log on a real Postgres: all that happens stands in it, and no secret does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest_asyncio

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import audit_pb2 as audit
from echomesh.auth.v1 import auth_pb2 as auth
from services.auth.refusal_limit import PER_MINUTE
from services.runtime.errors import Reason
from tests.support.audited import audit_rows, entries_of, problems_of
from tests.support.audited_auth import PASSWORD, do_everything, login, make_alice, read, told
from tests.support.auth_world import AuthWorld, auth_world
from tests.support.postgres import FreshDatabase


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


async def test_every_administrative_and_sign_in_event_is_recorded_once(world: AuthWorld) -> None:
    """What changes nothing the second time is not recorded again."""
    token = await world.token()
    before = len(await read(world, token))
    user_id, _ = await do_everything(world, token)
    entries = (await read(world, token))[before:]

    assert told(entries) == [
        ("user.create", "ok", "user"),
        ("user.set_roles", "ok", "user"),
        ("user.set_password", "ok", "user"),
        ("api_key.create", "ok", "api_key"),
        ("session.api_key", "ok", ""),
        ("session.login", "ok", ""),
        ("user.create", "ok", "user"),
        ("session.exchange", "ok", "user"),
        ("session.refresh", "ok", ""),
        ("session.logout", "ok", ""),
        ("api_key.revoke", "ok", "api_key"),
        ("signing_key.publish", "ok", "signing_key"),
        ("tenant.create", "ok", "tenant"),
        ("audit.read", "ok", "audit_log"),
    ]
    assert entries[1].target == f"user:{user_id}"
    details = json.loads(entries[1].details_json)
    assert (details["before"], details["roles"]) == (["user"], ["app", "user"])
    assert entries[5].actor == f"user:{user_id}"
    owner = f"user:{world.credentials['user_id']}"
    assert {entries[place].actor for place in (0, 1, 2, 3, 10, 11, 12, 13)} == {owner}


async def test_the_first_entries_are_bootstraps(world: AuthWorld) -> None:
    """The log begins with the tenant itself."""
    entries = await read(world)
    assert told(entries)[:2] == [
        ("tenant.create", "ok", "tenant"),
        ("signing_key.publish", "ok", "signing_key"),
    ]
    assert entries[0].actor == "bootstrap"
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))


async def test_refusals_are_recorded_without_what_was_typed(world: AuthWorld) -> None:
    """A wrong password, a name nobody has, a wrong secret, a used refresh token."""
    token = await world.token()
    user_id = await make_alice(world, token)
    key = world.credentials["app_key"]
    tokens = (await world.call("Login", login())).tokens
    refresh = auth.RefreshRequest(refresh_token=tokens.refresh_token, request_id="r1")
    await world.call("Refresh", refresh)
    before = len(await read(world, token))

    await world.refused("Login", login(password="not it"))
    await world.refused("Login", login(username="my password by mistake"))
    await world.refused("ExchangeApiKey", auth.ExchangeApiKeyRequest(api_key=key[:-4] + "AAAA"))
    refresh.request_id = "r2"
    await world.refused("Refresh", refresh)
    entries = (await read(world, token))[before:-1]

    assert [(e.actor, e.action, e.outcome) for e in entries] == [
        (f"user:{user_id}", "session.login", "refused"),
        ("unknown", "session.login", "refused"),
        ("unknown", "session.api_key", "refused"),
        (f"user:{user_id}", "session.refresh", "refused"),
    ]
    assert json.loads(entries[2].details_json)["reason"] == "wrong"
    assert json.loads(entries[3].details_json)["reason"] == "reused"


async def test_an_administrator_who_reaches_for_more_is_recorded(world: AuthWorld) -> None:
    """Making an operator, or taking an operator's account, is refused; the log says who tried."""
    token = await world.token()
    boss = admin.CreateUserRequest(
        request_id="b", username="boss", password=PASSWORD, roles=[admin.ROLE_ADMIN]
    )
    boss_id = (await world.call("CreateUser", boss, token)).user.id
    boss_token = (await world.call("Login", login("boss"))).tokens.access_token
    owner = world.credentials["user_id"]
    before = len(await read(world, token))
    for method, request in (
        (
            "CreateUser",
            admin.CreateUserRequest(request_id="o", username="o", roles=[admin.ROLE_OPERATOR]),
        ),
        (
            "SetUserRoles",
            admin.SetUserRolesRequest(user_id=boss_id, roles=[admin.ROLE_OPERATOR]),
        ),
        ("SetPassword", admin.SetPasswordRequest(user_id=owner, password=PASSWORD)),
        ("CreateApiKey", admin.CreateApiKeyRequest(name="k", user_id=owner)),
    ):
        refused = await world.refused(method, request, boss_token)
        assert refused.reason is Reason.PERMISSION_DENIED
    entries = (await read(world, token))[before:-1]
    assert [(e.actor, e.action, e.outcome, e.target) for e in entries] == [
        (f"user:{boss_id}", "user.create", "refused", ""),
        (f"user:{boss_id}", "user.set_roles", "refused", f"user:{boss_id}"),
        (f"user:{boss_id}", "user.set_password", "refused", f"user:{owner}"),
        (f"user:{boss_id}", "api_key.create", "refused", f"user:{owner}"),
    ]


async def test_junk_that_names_no_tenant_writes_nothing(world: AuthWorld) -> None:
    """Else whoever can reach the port could fill the disk."""
    before = len(await read(world))
    unknown_key = "em_" + "0" * 16 + "_" + "A" * 43
    await world.refused("ExchangeApiKey", auth.ExchangeApiKeyRequest(api_key=unknown_key))
    await world.refused("Login", auth.LoginRequest(tenant="no", username="u", password=PASSWORD))
    junk = "er_" + world.credentials["tenant_id"] + "_" + "A" * 43
    await world.refused("Refresh", auth.RefreshRequest(refresh_token=junk, request_id="r"))
    await world.call("Logout", auth.LogoutRequest(refresh_token=junk))

    # Signing in to read, and reading, are the two that came since.
    assert len(await read(world)) == before + 2


async def test_no_secret_and_no_name_is_in_the_log(world: AuthWorld) -> None:
    """Neither passwords, keys and tokens nor what people call themselves."""
    tokens = await world.sign_in()
    _, secret = await do_everything(world, tokens.access_token)
    await world.refused("Login", login(username="somebody else"))
    rows = await audit_rows(world.database.owner("auth"), "auth")
    text = "\n".join(str(dict(row)) for row in rows)

    assert "session.login" in text
    # Split from the front: the secret is base64url, and so may hold underscores of its own.
    for hidden in (
        PASSWORD, secret.split("_", 2)[2], world.credentials["api_key"].split("_", 2)[2],
        tokens.access_token, tokens.refresh_token, "alice", "bob@example.org", "somebody else",
    ):  # fmt: skip
        assert hidden not in text, hidden


async def test_writers_at_the_same_time_make_one_chain(world: AuthWorld) -> None:
    """Without a gap, a fork or a failed call."""
    before = len(await read(world))
    await asyncio.gather(*(world.sign_in() for _ in range(40)))
    entries = await read(world)
    assert len(entries) == before + 42
    assert problems_of(entries, "auth") == []


async def test_a_change_that_fails_leaves_no_entry(world: AuthWorld) -> None:
    """The second user of a name is refused, and so is the entry."""
    token = await world.token()
    await make_alice(world, token)
    before = len(await read(world, token))
    again = admin.CreateUserRequest(request_id="b", username="alice", password=PASSWORD)
    refused = await world.refused("CreateUser", again, token)
    assert refused.reason is Reason.ALREADY_EXISTS
    assert len(await read(world, token)) == before + 1


async def test_a_change_that_cannot_be_recorded_is_not_made(world: AuthWorld) -> None:
    """Both or neither: here the entry cannot be written."""
    token = await world.token()
    owner = await asyncpg.connect(world.database.owner("auth"))
    try:
        await owner.execute("revoke insert on auth.audit_log from auth_app")
        await world.refused(
            "CreateUser",
            admin.CreateUserRequest(request_id="a", username="alice", password=PASSWORD),
            token,
        )
        made = await owner.fetchval("select count(*) from auth.users where username = 'alice'")
    finally:
        await owner.close()
    assert made == 0


async def test_the_log_is_for_administrators_of_its_own_tenant(world: AuthWorld) -> None:
    """An application's key may not read it, and another tenant's administrator sees its own."""
    request = audit.ListAuditEntriesRequest()
    for method in ("ListAuditEntries", "GetAuditAnchor"):
        refused = await world.refused(method, _request(method), await world.token("app_key"))
        assert refused.reason is Reason.PERMISSION_DENIED
    await world.call(
        "CreateTenant",
        admin.CreateTenantRequest(
            request_id="t", name="second", admin_username="chief", admin_password=PASSWORD
        ),
        await world.token(),
    )
    login = auth.LoginRequest(tenant="second", username="chief", password=PASSWORD)
    chief = (await world.call("Login", login)).tokens.access_token
    answer = await world.call("ListAuditEntries", request, chief)
    assert [entry.action for entry in answer.entries] == [
        "tenant.create",
        "user.create",
        "session.login",
        "audit.read",
    ]
    assert problems_of(entries_of(answer.entries), "auth") == []


def _request(method: str) -> Any:
    return getattr(audit, f"{method}Request")()


async def test_an_anchor_is_the_chains_last_entry(world: AuthWorld) -> None:
    token = await world.token()
    last = (await read(world, token))[-1]
    found = (await world.call("GetAuditAnchor", audit.GetAuditAnchorRequest(), token)).anchor
    assert (found.log, found.tenant_id, found.seq, found.hash) == (
        "auth", world.credentials["tenant_id"], last.seq, last.hash,
    )  # fmt: skip


async def test_nobody_reads_without_an_entry_that_says_so(world: AuthWorld) -> None:
    """A page token made up to skip the first page names an entry that tells of no such reading."""
    token = await world.token()
    boss = admin.CreateUserRequest(
        request_id="b", username="boss", password=PASSWORD, roles=[admin.ROLE_ADMIN]
    )
    await world.call("CreateUser", boss, token)
    theirs = (await world.call("Login", login("boss"))).tokens.access_token
    entries = await read(world, token)
    for seq in range(1, entries[-1].seq + 3):
        request = audit.ListAuditEntriesRequest(page_token=f"0-{seq}")
        refused = await world.refused("ListAuditEntries", request, theirs)
        assert refused.reason is Reason.INVALID_PAGE_TOKEN
    assert (await read(world, theirs))[-1].seq == entries[-1].seq + 1


async def test_a_reading_ends_at_its_own_entry(world: AuthWorld) -> None:
    """However much is written while it goes on."""
    token = await world.token()
    request = audit.ListAuditEntriesRequest(page_size=2)
    first = await world.call("ListAuditEntries", request, token)
    await world.sign_in()
    request = audit.ListAuditEntriesRequest(page_token=first.next_page_token)
    rest = await world.call("ListAuditEntries", request, token)
    assert rest.next_page_token == ""
    assert rest.entries[-1].action == "audit.read"


async def test_a_flood_of_refusals_is_written_in_part_and_counted(world: AuthWorld) -> None:
    """Whoever knows a key's public part, or a tenant's name, must not fill the disk."""
    await world.token()
    wrong = world.credentials["app_key"][:-4] + "AAAA"
    request = auth.ExchangeApiKeyRequest(api_key=wrong)
    for _ in range(PER_MINUTE + 5):
        await world.refused("ExchangeApiKey", request)
    world.clock.advance(60)
    await world.refused("ExchangeApiKey", request)
    entries = [e for e in await read(world) if e.outcome == "refused"]
    assert len(entries) == PER_MINUTE + 1
    assert json.loads(entries[-1].details_json)["left_out"] == 5


async def test_a_page_token_that_was_not_given_out_is_refused(world: AuthWorld) -> None:
    administrator = await world.token()
    for token in ("x", "-1", "1.5", "9" * 20, "²", "0", "5", "1-1-1", "²-1", "0-" + "9" * 19):
        request = audit.ListAuditEntriesRequest(page_token=token)
        refused = await world.refused("ListAuditEntries", request, administrator)
        assert refused.reason is Reason.INVALID_PAGE_TOKEN
