"""Rows of schema `auth` as records."""

from __future__ import annotations

from typing import Any

from services.auth.model import ApiKey, Family, RefreshToken, SigningKey, Tenant, User


def to_tenant(row: Any) -> Tenant:
    """Return a row of auth.tenants as a record."""
    return Tenant(row["id"], row["name"], row["created_at"])


def to_user(row: Any) -> User:
    """Return a row of auth.users as a record."""
    return User(
        tenant_id=row["tenant_id"],
        id=row["id"],
        username=row["username"],
        external_id=row["external_id"],
        roles=frozenset(row["roles"]),
        created_at=row["created_at"],
    )


def to_api_key(row: Any) -> ApiKey:
    """Return a row of auth.api_keys as a record."""
    return ApiKey(
        tenant_id=row["tenant_id"],
        id=row["id"],
        user_id=row["user_id"],
        name=row["name"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def to_family(row: Any) -> Family:
    """Return a row of auth.refresh_families as a record."""
    return Family(
        tenant_id=row["tenant_id"],
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        api_key_id=row["api_key_id"],
        revoked_for=row["revoked_for"],
    )


def to_refresh_token(row: Any) -> RefreshToken:
    """Return a row of auth.refresh_tokens as a record."""
    return RefreshToken(
        tenant_id=row["tenant_id"],
        sha256=row["token_sha256"],
        family_id=row["family_id"],
        parent=row["parent_sha256"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
        used_request_id=row["used_request_id"],
    )


def to_signing_key(row: Any) -> SigningKey:
    """Return a row of auth.signing_keys as a record."""
    return SigningKey(
        id=row["id"],
        public_key=row["public_key"],
        wrapped_key=row["wrapped_key"],
        created_at=row["created_at"],
        signs_from=row["signs_from"],
        retires_at=row["retires_at"],
    )
