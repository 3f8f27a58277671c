"""What auth needs from storage: one transaction with small steps; rules stay in the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from services.auth.model import ApiKey, Family, RefreshToken, SigningKey, Tenant, User
from services.auth.paging import Cursor
from services.runtime.audit import AuditEvent


@dataclass(frozen=True)
class StoredAnswer:
    """The answer of a finished write, kept under its request_id."""

    fingerprint: bytes
    answer: Mapping[str, Any]


class TenantTransaction(Protocol):
    """Steps inside one tenant; all or none of them happen."""

    def audit(self, event: AuditEvent, tenant_id: str | None = None) -> None:
        """Record what the transaction does, in the log of its own or another tenant.

        It is written as the transaction's last step; without it nothing is done.
        """
        ...

    async def answer_of(self, user_id: str, request_id: str) -> StoredAnswer | None:
        """Return the kept answer. Two transactions with one id run one after the other."""
        ...

    async def keep_answer(
        self, user_id: str, request_id: str, stored: StoredAnswer, now: datetime
    ) -> None:
        """Keep the answer of a write."""
        ...

    async def add_tenant(self, tenant: Tenant) -> bool:
        """Insert the transaction's own tenant if it is not there; False: the name is taken."""
        ...

    async def add_user(self, user: User, password_hash: str | None) -> bool:
        """Insert a user; False: the username or external id is taken."""
        ...

    async def user(self, user_id: str) -> User | None:
        """Return a user by id."""
        ...

    async def user_named(self, username: str) -> tuple[User, str | None] | None:
        """Return a user and their password hash by username."""
        ...

    async def external_user(self, external_id: str) -> User | None:
        """Return a user by the application's own id."""
        ...

    async def users(self, after: Cursor | None, limit: int) -> Sequence[User]:
        """Return users in order of creation."""
        ...

    async def set_roles(self, user_id: str, roles: frozenset[str]) -> None:
        """Replace a user's roles."""
        ...

    async def set_password(self, user_id: str, password_hash: str) -> None:
        """Replace a user's password hash."""
        ...

    async def hold_password(self, user_id: str, password_hash: str) -> bool:
        """Return whether a hash is still the user's; it stays so until the transaction ends."""
        ...

    async def add_api_key(self, key: ApiKey, secret_sha256: bytes) -> None:
        """Insert a key."""
        ...

    async def api_keys(self, after: Cursor | None, limit: int) -> Sequence[ApiKey]:
        """Return keys in order of creation, revoked ones too."""
        ...

    async def revoke_api_key(self, key_id: str, now: datetime) -> ApiKey | None:
        """Revoke a key if it is not yet; return it, or None if there is none."""
        ...

    async def api_key(self, key_id: str) -> ApiKey | None:
        """Return a key by id."""
        ...

    async def hold_api_key(self, key_id: str) -> bool:
        """Return whether a key is in force; it stays so until the transaction ends."""
        ...

    async def add_family(self, family: Family, first: RefreshToken) -> None:
        """Insert a family with its first token."""
        ...

    async def lock_token(self, sha256: bytes) -> tuple[RefreshToken, Family] | None:
        """Return a token and its family, locking the family until the transaction ends."""
        ...

    async def kin(self, token: RefreshToken) -> Sequence[RefreshToken]:
        """Return the token's siblings (itself among them) and its successors."""
        ...

    async def add_token(self, token: RefreshToken) -> None:
        """Insert a refresh token."""
        ...

    async def mark_used(self, sha256: bytes, request_id: str, now: datetime) -> None:
        """Mark a refresh token as exchanged."""
        ...

    async def revoke_family(self, family_id: str, reason: str, now: datetime) -> None:
        """End a family; the first reason stays."""
        ...

    async def revoke_families_of(self, user_id: str, reason: str, now: datetime) -> None:
        """End all families of a user."""
        ...

    async def revoke_families_from(self, key_id: str, now: datetime) -> None:
        """End all families that an API key was exchanged for."""
        ...


class Store(Protocol):
    """Where auth keeps things. Raises AppError DEPENDENCY_UNAVAILABLE when it is away."""

    def tenant(self, tenant_id: str) -> AbstractAsyncContextManager[TenantTransaction]:
        """Open a transaction inside a tenant."""
        ...

    async def tenant_named(self, name: str) -> Tenant | None:
        """Return a tenant by name."""
        ...

    async def api_key(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        """Return a key and the hash of its secret by id, of whatever tenant."""
        ...

    async def reserve_login(self, key: bytes, now: datetime) -> float:
        """Count an attempt as failed before it is made; return the seconds to wait instead.

        0: the attempt may be made. Exact for attempts at the same time, on any replica.
        """
        ...

    async def release_login(self, key: bytes, attempted_at: datetime) -> None:
        """Take back what `reserve_login` counted at that time: the attempt was not made."""
        ...

    async def forget_failures(self, key: bytes) -> None:
        """Forget the failures after a success."""
        ...

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return all signing keys, the newest first."""
        ...

    async def add_signing_key(
        self, key: SigningKey, retire_others_at: datetime | None, tenant_id: str, event: AuditEvent
    ) -> bool:
        """Publish a key and set when those before it retire; False: another was published since.

        Only the first key may come with `retire_others_at` None. `event` goes to the log of the
        tenant whose operator it was.
        """
        ...
