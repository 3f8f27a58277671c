"""The auth protos: who may call what, what may be repeated, and what is refused unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import admin_pb2_grpc, auth_pb2_grpc
from echomesh.auth.v1 import auth_pb2 as auth
from echomesh.common.v1 import options_pb2
from services.auth import service
from services.auth.model import ROLES
from services.runtime.errors import Reason
from services.runtime.server import Registration
from services.runtime.status import from_rpc_error
from tests.support.transport import Wire, serving

AUTH = auth.DESCRIPTOR.services_by_name["AuthService"]
ADMIN = admin.DESCRIPTOR.services_by_name["AdminService"]
# Needed to get a token, or to end or check one: nothing else is open to everyone.
PUBLIC = {"Login", "ExchangeApiKey", "Refresh", "Logout", "GetJwks"}
OPERATORS_ONLY = {"CreateTenant", "RotateSigningKey"}
# Each call makes something new, or counts as an attempt.
NOT_REPEATABLE = {"Login", "CreateApiKey"}


def test_nothing_but_signing_in_is_public() -> None:
    """The public list is exactly this one."""
    public = {m.name for m in AUTH.methods if _policy(m).access == options_pb2.ACCESS_PUBLIC}

    assert public == PUBLIC


def test_administration_needs_a_role() -> None:
    """Every AdminService RPC is for administrators, tenants and signing keys for operators."""
    for method in ADMIN.methods:
        operator = method.name in OPERATORS_ONLY
        expected = options_pb2.ACCESS_OPERATOR if operator else options_pb2.ACCESS_ADMIN
        assert _policy(method).access == expected


def test_only_idempotent_calls_are_repeated() -> None:
    """Login counts attempts and CreateApiKey makes a secret: neither is retried for the client."""
    once = {
        method.name
        for descriptor in (AUTH, ADMIN)
        for method in descriptor.methods
        if not method.GetOptions().Extensions[options_pb2.retry].idempotent
    }

    assert once == NOT_REPEATABLE


def test_roles_are_the_same_in_proto_and_domain() -> None:
    """Every role has one name on both sides."""
    proto = {f"ROLE_{role.upper()}" for role in ROLES} | {"ROLE_UNSPECIFIED"}

    assert set(admin.Role.keys()) == proto
    assert set(service._ROLES.values()) == ROLES


def _policy(method: object) -> options_pb2.Policy:
    found: options_pb2.Policy = method.GetOptions().Extensions[options_pb2.policy]  # type: ignore[attr-defined]
    return found


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    """Servicers without a domain: what is refused never gets there."""
    registrations = (
        Registration(
            auth_pb2_grpc.add_AuthServiceServicer_to_server,
            service.AuthServicer(None, None),  # type: ignore[arg-type]
            AUTH.full_name,
        ),
        Registration(
            admin_pb2_grpc.add_AdminServiceServicer_to_server,
            service.AdminServicer(None),  # type: ignore[arg-type]
            ADMIN.full_name,
        ),
    )
    async with serving(tmp_path, *registrations, name="auth") as wire:
        yield wire


@pytest.mark.parametrize(
    ("method", "request_", "fields"),
    [
        ("Login", auth.LoginRequest(), {"tenant", "username", "password"}),
        ("ExchangeApiKey", auth.ExchangeApiKeyRequest(api_key="x" * 257), {"api_key"}),
        ("Refresh", auth.RefreshRequest(), {"refresh_token", "request_id"}),
        ("Logout", auth.LogoutRequest(refresh_token="x" * 513), {"refresh_token"}),
    ],
)
async def test_a_request_that_is_not_valid_names_its_fields(
    wire: Wire, method: str, request_: object, fields: set[str]
) -> None:
    """The rules in the proto are checked before any code of auth runs."""
    async with wire.raw() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(auth_pb2_grpc.AuthServiceStub(channel), method)(request_, timeout=10)

    error = from_rpc_error(caught.value, "auth")
    assert error.reason is Reason.INVALID_REQUEST
    assert {violation.field for violation in error.violations} == fields


@pytest.mark.parametrize("method", [method.name for method in ADMIN.methods])
async def test_administration_is_refused_without_a_token(wire: Wire, method: str) -> None:
    """UNAUTHENTICATED comes first, whatever the request says."""
    request = getattr(admin, f"{method}Request")()
    async with wire.raw() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(admin_pb2_grpc.AdminServiceStub(channel), method)(request, timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
