"""AuthService and AdminService: proto in, domain, proto out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from echomesh.auth.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from services.auth.administration import Administration
from services.auth.keyring import Keyring
from services.auth.model import (
    ROLE_ADMIN,
    ROLE_APP,
    ROLE_OPERATOR,
    ROLE_USER,
    ApiKey,
    Tenant,
    Tokens,
    User,
)
from services.auth.sessions import Sessions
from services.runtime.identity import current_identity

Context = grpc.aio.ServicerContext[Any, Any]

_ROLES = {
    admin_pb2.ROLE_USER: ROLE_USER,
    admin_pb2.ROLE_APP: ROLE_APP,
    admin_pb2.ROLE_ADMIN: ROLE_ADMIN,
    admin_pb2.ROLE_OPERATOR: ROLE_OPERATOR,
}
_PROTO_ROLES = {name: role for role, name in _ROLES.items()}


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Signing in and tokens."""

    def __init__(self, sessions: Sessions, keyring: Keyring) -> None:
        self._sessions = sessions
        self._keyring = keyring

    async def Login(  # noqa: N802
        self, request: auth_pb2.LoginRequest, context: Context
    ) -> auth_pb2.LoginResponse:
        """Sign in with a password."""
        tokens = await self._sessions.login(
            request.tenant, request.username, request.password, context.peer()
        )
        return auth_pb2.LoginResponse(tokens=_tokens(tokens))

    async def ExchangeApiKey(  # noqa: N802
        self, request: auth_pb2.ExchangeApiKeyRequest, context: Context
    ) -> auth_pb2.ExchangeApiKeyResponse:
        """Turn an API key into tokens."""
        tokens = await self._sessions.exchange_api_key(request.api_key)
        return auth_pb2.ExchangeApiKeyResponse(tokens=_tokens(tokens))

    async def ExchangeToken(  # noqa: N802
        self, request: auth_pb2.ExchangeTokenRequest, context: Context
    ) -> auth_pb2.ExchangeTokenResponse:
        """Get tokens for an application's end user."""
        tokens, user_id = await self._sessions.exchange_token(
            current_identity(), request.external_user_id
        )
        return auth_pb2.ExchangeTokenResponse(tokens=_tokens(tokens), user_id=user_id)

    async def Refresh(  # noqa: N802
        self, request: auth_pb2.RefreshRequest, context: Context
    ) -> auth_pb2.RefreshResponse:
        """Exchange a refresh token."""
        tokens = await self._sessions.refresh(request.refresh_token, request.request_id)
        return auth_pb2.RefreshResponse(tokens=_tokens(tokens))

    async def Logout(  # noqa: N802
        self, request: auth_pb2.LogoutRequest, context: Context
    ) -> auth_pb2.LogoutResponse:
        """Revoke a refresh token and its family."""
        await self._sessions.logout(request.refresh_token)
        return auth_pb2.LogoutResponse()

    async def GetJwks(  # noqa: N802
        self, request: auth_pb2.GetJwksRequest, context: Context
    ) -> auth_pb2.GetJwksResponse:
        """Return the public keys."""
        return auth_pb2.GetJwksResponse(jwks_json=await self._keyring.jwks())

    async def WhoAmI(  # noqa: N802
        self, request: auth_pb2.WhoAmIRequest, context: Context
    ) -> auth_pb2.WhoAmIResponse:
        """Say whom the token names."""
        identity = current_identity()
        return auth_pb2.WhoAmIResponse(
            tenant_id=identity.tenant_id,
            user_id=identity.user_id,
            roles=sorted(identity.roles),
            expires_at=Timestamp(seconds=int(identity.expires_at)),
        )


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Administration of a tenant and of the mesh."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def CreateTenant(  # noqa: N802
        self, request: admin_pb2.CreateTenantRequest, context: Context
    ) -> admin_pb2.CreateTenantResponse:
        """Make a tenant."""
        tenant, admin = await self._administration.create_tenant(
            current_identity(),
            request.request_id,
            request.name,
            request.admin_username,
            request.admin_password,
        )
        return admin_pb2.CreateTenantResponse(tenant=_tenant(tenant), admin=_user(admin))

    async def CreateUser(  # noqa: N802
        self, request: admin_pb2.CreateUserRequest, context: Context
    ) -> admin_pb2.CreateUserResponse:
        """Make a user."""
        user = await self._administration.create_user(
            current_identity(),
            request.request_id,
            request.username,
            request.password or None,
            _roles(request.roles),
        )
        return admin_pb2.CreateUserResponse(user=_user(user))

    async def ListUsers(  # noqa: N802
        self, request: admin_pb2.ListUsersRequest, context: Context
    ) -> admin_pb2.ListUsersResponse:
        """List the tenant's users."""
        users, next_token = await self._administration.list_users(
            current_identity(), request.page_size, request.page_token
        )
        return admin_pb2.ListUsersResponse(users=map(_user, users), next_page_token=next_token)

    async def SetUserRoles(  # noqa: N802
        self, request: admin_pb2.SetUserRolesRequest, context: Context
    ) -> admin_pb2.SetUserRolesResponse:
        """Replace a user's roles."""
        user = await self._administration.set_roles(
            current_identity(), request.user_id, _roles(request.roles)
        )
        return admin_pb2.SetUserRolesResponse(user=_user(user))

    async def SetPassword(  # noqa: N802
        self, request: admin_pb2.SetPasswordRequest, context: Context
    ) -> admin_pb2.SetPasswordResponse:
        """Set a user's password."""
        await self._administration.set_password(
            current_identity(), request.user_id, request.password
        )
        return admin_pb2.SetPasswordResponse()

    async def CreateApiKey(  # noqa: N802
        self, request: admin_pb2.CreateApiKeyRequest, context: Context
    ) -> admin_pb2.CreateApiKeyResponse:
        """Make an API key."""
        key, text = await self._administration.create_api_key(
            current_identity(), request.name, request.user_id
        )
        return admin_pb2.CreateApiKeyResponse(api_key=_api_key(key), secret=text)

    async def ListApiKeys(  # noqa: N802
        self, request: admin_pb2.ListApiKeysRequest, context: Context
    ) -> admin_pb2.ListApiKeysResponse:
        """List the tenant's API keys."""
        keys, next_token = await self._administration.list_api_keys(
            current_identity(), request.page_size, request.page_token
        )
        return admin_pb2.ListApiKeysResponse(
            api_keys=map(_api_key, keys), next_page_token=next_token
        )

    async def RevokeApiKey(  # noqa: N802
        self, request: admin_pb2.RevokeApiKeyRequest, context: Context
    ) -> admin_pb2.RevokeApiKeyResponse:
        """Revoke an API key."""
        await self._administration.revoke_api_key(current_identity(), request.id)
        return admin_pb2.RevokeApiKeyResponse()

    async def RotateSigningKey(  # noqa: N802
        self, request: admin_pb2.RotateSigningKeyRequest, context: Context
    ) -> admin_pb2.RotateSigningKeyResponse:
        """Publish a new signing key."""
        key = await self._administration.rotate_signing_key(current_identity(), request.request_id)
        return admin_pb2.RotateSigningKeyResponse(key_id=key.id, signs_from=_time(key.signs_from))


def _time(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _tokens(tokens: Tokens) -> auth_pb2.Tokens:
    return auth_pb2.Tokens(
        access_token=tokens.access_token,
        access_expires_at=_time(tokens.access_expires_at),
        refresh_token=tokens.refresh_token,
        refresh_expires_at=_time(tokens.refresh_expires_at),
    )


def _roles(roles: Iterable[admin_pb2.Role.ValueType]) -> list[str]:
    return [_ROLES[role] for role in roles]


def _tenant(tenant: Tenant) -> admin_pb2.Tenant:
    return admin_pb2.Tenant(id=tenant.id, name=tenant.name, created_at=_time(tenant.created_at))


def _user(user: User) -> admin_pb2.User:
    return admin_pb2.User(
        id=user.id,
        username=user.username or "",
        external_id=user.external_id or "",
        roles=sorted(_PROTO_ROLES[role] for role in user.roles),
        created_at=_time(user.created_at),
    )


def _api_key(key: ApiKey) -> admin_pb2.ApiKey:
    return admin_pb2.ApiKey(
        id=key.id,
        name=key.name,
        user_id=key.user_id,
        created_at=_time(key.created_at),
        revoked_at=_time(key.revoked_at) if key.revoked_at else None,
    )
