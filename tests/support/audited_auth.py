"""Auth's audit log in tests: doing all that is recorded, and reading it."""

from __future__ import annotations

from echomesh import AuditEntry
from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import audit_pb2 as audit
from echomesh.auth.v1 import auth_pb2 as auth
from tests.support.audited import entries_of
from tests.support.auth_world import TENANT, AuthWorld

PASSWORD = "correct horse battery"


async def read(world: AuthWorld, token: str = "", page_size: int = 0) -> list[AuditEntry]:
    """The whole log, page by page."""
    token = token or await world.token()
    found: list[AuditEntry] = []
    request = audit.ListAuditEntriesRequest(page_size=page_size)
    while True:
        answer = await world.call("ListAuditEntries", request, token)
        found += entries_of(answer.entries)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


def told(entries: list[AuditEntry]) -> list[tuple[str, str, str]]:
    """Action, outcome and kind of target of each entry."""
    return [(e.action, e.outcome, e.target.partition(":")[0]) for e in entries]


def login(username: str = "alice", password: str = PASSWORD) -> auth.LoginRequest:
    """A sign-in by password."""
    return auth.LoginRequest(tenant=TENANT, username=username, password=password)


async def make_alice(world: AuthWorld, token: str) -> str:
    """Make a user who can sign in; return their id."""
    request = admin.CreateUserRequest(request_id="a", username="alice", password=PASSWORD)
    return str((await world.call("CreateUser", request, token)).user.id)


async def do_everything(world: AuthWorld, token: str) -> tuple[str, str]:
    """Do all that is recorded; return alice's id and her key's secret."""
    user_id = await make_alice(world, token)
    roles = admin.SetUserRolesRequest(user_id=user_id, roles=[admin.ROLE_USER, admin.ROLE_APP])
    await world.call("SetUserRoles", roles, token)
    await world.call(
        "SetPassword", admin.SetPasswordRequest(user_id=user_id, password=PASSWORD), token
    )
    made = await world.call(
        "CreateApiKey", admin.CreateApiKeyRequest(name="k", user_id=user_id), token
    )
    await world.call("ExchangeApiKey", auth.ExchangeApiKeyRequest(api_key=made.secret))
    tokens = (await world.call("Login", login())).tokens
    exchange = auth.ExchangeTokenRequest(external_user_id="bob@example.org")
    await world.call("ExchangeToken", exchange, tokens.access_token)
    refresh = auth.RefreshRequest(refresh_token=tokens.refresh_token, request_id="r1")
    fresh = (await world.call("Refresh", refresh)).tokens
    await world.call("Logout", auth.LogoutRequest(refresh_token=fresh.refresh_token))
    await world.call("Logout", auth.LogoutRequest(refresh_token=fresh.refresh_token))
    await world.call("RevokeApiKey", admin.RevokeApiKeyRequest(id=made.api_key.id), token)
    await world.call("RevokeApiKey", admin.RevokeApiKeyRequest(id=made.api_key.id), token)
    await world.call("RotateSigningKey", admin.RotateSigningKeyRequest(request_id="k"), token)
    new = admin.CreateTenantRequest(
        request_id="t", name="second", admin_username="chief", admin_password=PASSWORD
    )
    await world.call("CreateTenant", new, token)
    await world.call("CreateTenant", new, token)
    return user_id, made.secret
