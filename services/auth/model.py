"""What auth knows: plain records, free of database and transport."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

ROLE_USER = "user"
ROLE_APP = "app"
ROLE_ADMIN = "admin"
ROLE_OPERATOR = "operator"
ROLES = frozenset({ROLE_USER, ROLE_APP, ROLE_ADMIN, ROLE_OPERATOR})


@dataclass(frozen=True)
class Tenant:
    """A customer: everything else belongs to one."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True)
class User:
    """Someone in a tenant; `username` or `external_id` (the application's own id) names them."""

    tenant_id: str
    id: str
    username: str | None
    external_id: str | None
    roles: frozenset[str]
    created_at: datetime


@dataclass(frozen=True)
class ApiKey:
    """A key's public side; `user_id` is whose identity it gives."""

    tenant_id: str
    id: str
    user_id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class Family:
    """All refresh tokens of one sign-in, by password, key (`api_key_id`) or application.

    `revoked_for` is logout, reuse, password, api_key or None.
    """

    tenant_id: str
    id: str
    user_id: str
    created_at: datetime
    expires_at: datetime
    api_key_id: str | None = None
    revoked_for: str | None = None


@dataclass(frozen=True)
class RefreshToken:
    """One refresh token as stored; `parent` is the hash of the one it was exchanged for."""

    tenant_id: str
    sha256: bytes
    family_id: str
    parent: bytes | None
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    used_request_id: str | None = None


@dataclass(frozen=True)
class Tokens:
    """What a successful sign-in gives."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime


@dataclass(frozen=True)
class SigningKey:
    """A signing key as stored; `retires_at` is None until a successor is published."""

    id: str
    public_key: bytes
    wrapped_key: bytes
    created_at: datetime
    signs_from: datetime
    retires_at: datetime | None = None


class Randomness(Protocol):
    """Ids and secrets come in from outside, so that tests can foresee them."""

    def new_id(self) -> str:
        """Return a new UUID as text."""
        ...

    def key_id(self) -> str:
        """Return 16 random hex digits, the public part of a key."""
        ...

    def secret(self) -> str:
        """Return 256 random bits as URL-safe text."""
        ...
