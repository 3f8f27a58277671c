"""Tenants, users, roles and keys over gRPC: what AdminService promises."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import auth_pb2 as auth
from services.auth.model import User
from services.runtime.errors import Reason
from services.runtime.postgres import Database
from tests.support.auth_world import TENANT, AuthWorld, auth_world
from tests.support.postgres import FreshDatabase

PASSWORD = "correct horse battery"


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


def _user(username: str, *roles: admin.Role, request_id: str = "") -> admin.CreateUserRequest:
    return admin.CreateUserRequest(
        request_id=request_id or username, username=username, password=PASSWORD, roles=roles
    )


def new_tenant(request_id: str, name: str) -> admin.CreateTenantRequest:
    return admin.CreateTenantRequest(
        request_id=request_id, name=name, admin_username="chief", admin_password=PASSWORD
    )


async def _login(world: AuthWorld, username: str, tenant: str = TENANT) -> auth.Tokens:
    request = auth.LoginRequest(tenant=tenant, username=username, password=PASSWORD)
    answer: auth.LoginResponse = await world.call("Login", request)
    return answer.tokens


async def _admin(world: AuthWorld) -> str:
    """The token of an administrator who is no operator."""
    await world.call("CreateUser", _user("boss", admin.ROLE_ADMIN), await world.token())
    return (await _login(world, "boss")).access_token


async def _other_tenants_admin(world: AuthWorld) -> str:
    """The token of an administrator of another tenant, made as bootstrap makes the first."""
    tenant = await world.call(
        "CreateTenant",
        new_tenant("t", "second"),
        await world.token(),
    )
    user = User(
        tenant.tenant.id, str(uuid.uuid4()), "x", None, frozenset({"admin"}), world.clock.now()
    )
    async with world.parts.store.tenant(tenant.tenant.id) as tx:
        await tx.add_user(user, None)
    return (await world.parts.keyring.sign(user))[0]


async def test_a_user_is_made_once_for_a_request_id(world: AuthWorld) -> None:
    """The same request, even five times at once, gives one and the same user."""
    token = await world.token()

    answers = await asyncio.gather(
        *(world.call("CreateUser", _user("alice"), token) for _ in range(5))
    )

    assert all(answer == answers[0] for answer in answers)
    assert list(answers[0].user.roles) == [admin.ROLE_USER]


async def test_a_request_id_with_another_body_is_refused(world: AuthWorld) -> None:
    """Another name or another password under a used request_id is REQUEST_ID_REUSED."""
    token = await world.token()
    await world.call("CreateUser", _user("alice", request_id="r"), token)
    other_password = _user("alice", request_id="r")
    other_password.password = "another password"

    for request in (_user("bob", request_id="r"), other_password):
        error = await world.refused("CreateUser", request, token)
        assert error.reason is Reason.REQUEST_ID_REUSED


async def test_a_taken_username_is_refused(world: AuthWorld) -> None:
    """A second user of one name is ALREADY_EXISTS."""
    token = await world.token()
    await world.call("CreateUser", _user("alice"), token)

    error = await world.refused("CreateUser", _user("alice", request_id="again"), token)

    assert (error.reason, dict(error.metadata)) == (Reason.ALREADY_EXISTS, {"type": "user"})


async def test_a_short_password_is_refused_and_none_is_fine(world: AuthWorld) -> None:
    """Fewer than eight characters name the field; no password means no password sign-in."""
    token = await world.token()
    short, none = _user("alice"), _user("bob")
    short.password, none.password = "short", ""

    error = await world.refused("CreateUser", short, token)
    await world.call("CreateUser", none, token)

    assert error.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in error.violations] == ["password"]


async def test_users_are_listed_by_page_in_order(world: AuthWorld) -> None:
    """Every user is on exactly one page; a made-up page token is refused."""
    token = await world.token()
    for number in range(5):
        world.clock.advance(1)
        await world.call("CreateUser", _user(f"u{number}"), token)

    seen: list[str] = []
    page_token = ""
    while True:
        request = admin.ListUsersRequest(page_size=3, page_token=page_token)
        page = await world.call("ListUsers", request, token)
        seen += [user.username for user in page.users]
        page_token = page.next_page_token
        if not page_token:
            break
    junk = await world.refused("ListUsers", admin.ListUsersRequest(page_token="junk"), token)

    assert sorted(seen[:2]) == ["app", "owner"]
    assert seen[2:] == [f"u{number}" for number in range(5)]
    assert junk.reason is Reason.INVALID_PAGE_TOKEN


async def test_new_roles_are_in_the_next_token(world: AuthWorld) -> None:
    """A refresh after SetUserRoles carries the new roles."""
    token = await world.token()
    user = (await world.call("CreateUser", _user("alice"), token)).user
    tokens = await _login(world, "alice")
    roles = [admin.ROLE_USER, admin.ROLE_ADMIN]
    await world.call("SetUserRoles", admin.SetUserRolesRequest(user_id=user.id, roles=roles), token)

    request = auth.RefreshRequest(refresh_token=tokens.refresh_token, request_id="r")
    renewed = (await world.call("Refresh", request)).tokens.access_token
    me = await world.call("WhoAmI", auth.WhoAmIRequest(), renewed)

    assert list(me.roles) == ["admin", "user"]


async def test_an_administrator_cannot_become_an_operator(world: AuthWorld) -> None:
    """Neither by making one, nor by roles, nor by an operator's password or key."""
    token, operator = await _admin(world), world.credentials["user_id"]
    attempts = [
        ("CreateUser", _user("op", admin.ROLE_OPERATOR)),
        (
            "SetUserRoles",
            admin.SetUserRolesRequest(user_id=operator, roles=[admin.ROLE_USER]),
        ),
        ("SetPassword", admin.SetPasswordRequest(user_id=operator, password=PASSWORD)),
        ("CreateApiKey", admin.CreateApiKeyRequest(name="mine", user_id=operator)),
        ("CreateTenant", new_tenant("t", "t")),
        ("RotateSigningKey", admin.RotateSigningKeyRequest(request_id="k")),
    ]

    for method, request in attempts:
        assert (await world.refused(method, request, token)).reason is Reason.PERMISSION_DENIED


async def test_only_administrators_administer(world: AuthWorld) -> None:
    """Every AdminService RPC refuses a plain user, and a call without a token."""
    await world.call("CreateUser", _user("alice"), await world.token())
    token = (await _login(world, "alice")).access_token
    someone = str(uuid.uuid4())
    requests = {
        "CreateTenant": new_tenant("r", "n"),
        "CreateUser": _user("bob"),
        "ListUsers": admin.ListUsersRequest(),
        "SetUserRoles": admin.SetUserRolesRequest(user_id=someone, roles=[admin.ROLE_USER]),
        "SetPassword": admin.SetPasswordRequest(user_id=someone, password=PASSWORD),
        "CreateApiKey": admin.CreateApiKeyRequest(name="n", user_id=someone),
        "ListApiKeys": admin.ListApiKeysRequest(),
        "RevokeApiKey": admin.RevokeApiKeyRequest(id="0123456789abcdef"),
        "RotateSigningKey": admin.RotateSigningKeyRequest(request_id="r"),
    }
    service = admin.DESCRIPTOR.services_by_name["AdminService"]
    assert set(requests) == {method.name for method in service.methods}

    for method, request in requests.items():
        assert (await world.refused(method, request, token)).reason is Reason.PERMISSION_DENIED
        assert (await world.refused(method, request)).reason is Reason.TOKEN_MISSING


async def test_a_new_password_ends_the_users_sign_ins(world: AuthWorld) -> None:
    """The old password and refresh tokens are dead, the new password works."""
    token = await world.token()
    user = (await world.call("CreateUser", _user("alice"), token)).user
    tokens = await _login(world, "alice")
    request = admin.SetPasswordRequest(user_id=user.id, password="a new password")
    await world.call("SetPassword", request, token)

    refresh = auth.RefreshRequest(refresh_token=tokens.refresh_token, request_id="r")
    old = auth.LoginRequest(tenant=TENANT, username="alice", password=PASSWORD)
    new = auth.LoginRequest(tenant=TENANT, username="alice", password="a new password")

    assert (await world.refused("Refresh", refresh)).reason is Reason.TOKEN_INVALID
    assert (await world.refused("Login", old)).reason is Reason.CREDENTIALS_INVALID
    assert (await world.call("Login", new)).tokens.access_token


async def test_a_key_works_until_it_is_revoked_with_all_its_sign_ins(world: AuthWorld) -> None:
    """Revoking ends the key and what was signed in with it; revoking again is fine."""
    token = await world.token()
    user = (await world.call("CreateUser", _user("alice"), token)).user
    request = admin.CreateApiKeyRequest(name="laptop", user_id=user.id)
    made = await world.call("CreateApiKey", request, token)
    exchange = auth.ExchangeApiKeyRequest(api_key=made.secret)
    tokens = (await world.call("ExchangeApiKey", exchange)).tokens
    for _ in range(2):
        await world.call("RevokeApiKey", admin.RevokeApiKeyRequest(id=made.api_key.id), token)

    refresh = auth.RefreshRequest(refresh_token=tokens.refresh_token, request_id="r")
    listed = (await world.call("ListApiKeys", admin.ListApiKeysRequest(), token)).api_keys

    assert made.secret.startswith(f"em_{made.api_key.id}_")
    assert (await world.refused("ExchangeApiKey", exchange)).reason is Reason.CREDENTIALS_INVALID
    assert (await world.refused("Refresh", refresh)).reason is Reason.TOKEN_INVALID
    revoked = {key.id: key.HasField("revoked_at") for key in listed}
    assert revoked[made.api_key.id]
    assert sum(revoked.values()) == 1


async def test_the_secret_of_a_key_is_nowhere_in_the_database(world: AuthWorld) -> None:
    """Neither keys nor refresh tokens are stored in a form that could be used."""
    tokens = await world.sign_in()
    owner = Database(world.database.owner("auth"), name="test")
    secrets = [world.credentials["api_key"][-43:], tokens.refresh_token[-43:]]
    async with owner.transaction() as connection:
        names = await connection.fetch(
            "select table_name from information_schema.tables where table_schema = 'auth'"
        )
        dump = ""
        for (name,) in names:
            rows = await connection.fetch(f"select t::text from auth.{name} t")
            dump += "".join(row[0] for row in rows)
    await owner.close()

    assert world.credentials["tenant_id"] in dump
    assert not any(secret in dump for secret in secrets)


async def test_a_tenant_is_made_once_for_a_request_id_and_once_for_a_name(
    world: AuthWorld,
) -> None:
    """The repeated request gives the same tenant, another one of that name is refused."""
    token = await world.token()
    request = new_tenant("t1", "second")
    first = await world.call("CreateTenant", request, token)
    again = await world.call("CreateTenant", request, token)
    taken = await world.refused("CreateTenant", new_tenant("t2", "second"), token)

    assert first == again
    assert taken.reason is Reason.ALREADY_EXISTS


async def test_another_tenants_ids_are_not_found(world: AuthWorld) -> None:
    """An administrator of one tenant cannot see, change or revoke anything of another."""
    stranger = await _other_tenants_admin(world)
    victim = world.credentials["user_id"]
    key_id = world.credentials["api_key"].split("_")[1]
    attempts = [
        ("SetUserRoles", admin.SetUserRolesRequest(user_id=victim, roles=[admin.ROLE_USER])),
        ("SetPassword", admin.SetPasswordRequest(user_id=victim, password=PASSWORD)),
        ("CreateApiKey", admin.CreateApiKeyRequest(name="n", user_id=victim)),
        ("RevokeApiKey", admin.RevokeApiKeyRequest(id=key_id)),
    ]

    for method, request in attempts:
        assert (await world.refused(method, request, stranger)).reason is Reason.NOT_FOUND
    users = (await world.call("ListUsers", admin.ListUsersRequest(), stranger)).users
    keys = (await world.call("ListApiKeys", admin.ListApiKeysRequest(), stranger)).api_keys
    assert {user.username for user in users} == {"x", "chief"}
    assert list(keys) == []


async def test_a_new_tenants_first_administrator_can_sign_in_and_run_it(world: AuthWorld) -> None:
    """They have their own tenant to administer, no other, and are no operator."""
    made = await world.call("CreateTenant", new_tenant("t", "second"), await world.token())
    token = (await _login(world, "chief", "second")).access_token
    users = await world.call("ListUsers", admin.ListUsersRequest(), token)
    refused = await world.refused("CreateTenant", new_tenant("u", "third"), token)

    assert [user.id for user in users.users] == [made.admin.id]
    assert set(made.admin.roles) == {admin.ROLE_USER, admin.ROLE_APP, admin.ROLE_ADMIN}
    assert refused.reason is Reason.PERMISSION_DENIED
