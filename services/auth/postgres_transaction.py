"""The steps of a tenant's transaction on Postgres; `Store` says what each promises."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

from services.auth.model import ApiKey, Family, RefreshToken, Tenant, User
from services.auth.paging import Cursor
from services.auth.postgres_rows import to_api_key, to_family, to_refresh_token, to_user
from services.auth.store import StoredAnswer
from services.runtime.audit import Anchor, AuditEvent, AuditLog
from services.runtime.postgres import Connection

_ADDED = "INSERT 0 1"
_SET_TENANT = "select set_config('app.tenant_id', $1, true)"


class PostgresTransaction:
    """`TenantTransaction` on one connection whose `app.tenant_id` is set."""

    def __init__(self, connection: Connection, tenant_id: str) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._audited: defaultdict[str, list[AuditEvent]] = defaultdict(list)

    def audit(self, event: AuditEvent, tenant_id: str | None = None) -> None:
        """Keep an event until the transaction's end: from its writing on, others wait."""
        self._audited[tenant_id or self._tenant_id].append(event)

    async def write_audited(self, log: AuditLog) -> list[Anchor]:
        """Write the events; in one order of tenants, so that two transactions cannot deadlock."""
        written = []
        for tenant_id, events in sorted(self._audited.items()):
            if tenant_id != self._tenant_id:
                await self._connection.execute(_SET_TENANT, tenant_id)
            written += await log.append(self._connection, tenant_id, events)
            if tenant_id != self._tenant_id:
                await self._connection.execute(_SET_TENANT, self._tenant_id)
        return written

    async def answer_of(self, user_id: str, request_id: str) -> StoredAnswer | None:
        """Return the kept answer, one transaction after the other."""
        await self._connection.execute(
            "select pg_advisory_xact_lock(hashtextextended($1, 0))",
            json.dumps([self._tenant_id, user_id, request_id]),
        )
        row = await self._row(
            "select fingerprint, answer from auth.requests "
            "where tenant_id = $1 and user_id = $2 and request_id = $3",
            user_id,
            request_id,
        )
        return StoredAnswer(row["fingerprint"], json.loads(row["answer"])) if row else None

    async def keep_answer(
        self, user_id: str, request_id: str, stored: StoredAnswer, now: datetime
    ) -> None:
        """Keep the answer of a write; the first one stays."""
        await self._execute(
            "insert into auth.requests values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
            user_id,
            request_id,
            stored.fingerprint,
            json.dumps(dict(stored.answer)),
            now,
        )

    async def add_tenant(self, tenant: Tenant) -> bool:
        """Insert the transaction's own tenant."""
        await self._connection.execute(
            "insert into auth.tenants values ($1, $2, $3) on conflict do nothing",
            tenant.id,
            tenant.name,
            tenant.created_at,
        )
        found = await self._row("select true from auth.tenants where id = $1")
        return found is not None

    async def add_user(self, user: User, password_hash: str | None) -> bool:
        """Insert a user."""
        status = await self._execute(
            "insert into auth.users values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
            user.id,
            user.username,
            user.external_id,
            sorted(user.roles),
            password_hash,
            user.created_at,
        )
        return status == _ADDED

    async def user(self, user_id: str) -> User | None:
        """Return a user by id."""
        row = await self._row("select * from auth.users where tenant_id = $1 and id = $2", user_id)
        return to_user(row) if row else None

    async def user_named(self, username: str) -> tuple[User, str | None] | None:
        """Return a user and their password hash by username."""
        row = await self._row(
            "select * from auth.users where tenant_id = $1 and username = $2", username
        )
        return (to_user(row), row["password_hash"]) if row else None

    async def external_user(self, external_id: str) -> User | None:
        """Return a user by the application's own id."""
        row = await self._row(
            "select * from auth.users where tenant_id = $1 and external_id = $2", external_id
        )
        return to_user(row) if row else None

    async def users(self, after: Cursor | None, limit: int) -> Sequence[User]:
        """Return users in order of creation."""
        rows = await self._rows(
            "select * from auth.users where tenant_id = $1 and "
            "($2::timestamptz is null or (created_at, id) > ($2, $3)) "
            "order by created_at, id limit $4",
            *_place(after),
            limit,
        )
        return [to_user(row) for row in rows]

    async def set_roles(self, user_id: str, roles: frozenset[str]) -> None:
        """Replace a user's roles."""
        await self._execute(
            "update auth.users set roles = $3 where tenant_id = $1 and id = $2",
            user_id,
            sorted(roles),
        )

    async def set_password(self, user_id: str, password_hash: str) -> None:
        """Replace a user's password hash."""
        await self._execute(
            "update auth.users set password_hash = $3 where tenant_id = $1 and id = $2",
            user_id,
            password_hash,
        )

    async def hold_password(self, user_id: str, password_hash: str) -> bool:
        """Lock a user's password against being reset, unless it is already."""
        row = await self._row(
            "select true from auth.users "
            "where tenant_id = $1 and id = $2 and password_hash = $3 for share",
            user_id,
            password_hash,
        )
        return row is not None

    async def add_api_key(self, key: ApiKey, secret_sha256: bytes) -> None:
        """Insert a key."""
        await self._execute(
            "insert into auth.api_keys (tenant_id, id, user_id, name, secret_sha256, created_at) "
            "values ($1, $2, $3, $4, $5, $6)",
            key.id,
            key.user_id,
            key.name,
            secret_sha256,
            key.created_at,
        )

    async def api_keys(self, after: Cursor | None, limit: int) -> Sequence[ApiKey]:
        """Return keys in order of creation."""
        rows = await self._rows(
            "select * from auth.api_keys where tenant_id = $1 and "
            "($2::timestamptz is null or (created_at, id) > ($2, $3)) "
            "order by created_at, id limit $4",
            *_place(after),
            limit,
        )
        return [to_api_key(row) for row in rows]

    async def revoke_api_key(self, key_id: str, now: datetime) -> ApiKey | None:
        """Revoke a key if it is not yet."""
        row = await self._row(
            "update auth.api_keys set revoked_at = coalesce(revoked_at, $3) "
            "where tenant_id = $1 and id = $2 returning *",
            key_id,
            now,
        )
        return to_api_key(row) if row else None

    async def api_key(self, key_id: str) -> ApiKey | None:
        """Return a key by id."""
        row = await self._row(
            "select * from auth.api_keys where tenant_id = $1 and id = $2", key_id
        )
        return to_api_key(row) if row else None

    async def hold_api_key(self, key_id: str) -> bool:
        """Lock a key against being revoked, unless it is already."""
        row = await self._row(
            "select true from auth.api_keys "
            "where tenant_id = $1 and id = $2 and revoked_at is null for share",
            key_id,
        )
        return row is not None

    async def add_family(self, family: Family, first: RefreshToken) -> None:
        """Insert a family with its first token."""
        await self._execute(
            "insert into auth.refresh_families "
            "(tenant_id, id, user_id, api_key_id, created_at, expires_at) "
            "values ($1, $2, $3, $4, $5, $6)",
            family.id,
            family.user_id,
            family.api_key_id,
            family.created_at,
            family.expires_at,
        )
        await self.add_token(first)

    async def lock_token(self, sha256: bytes) -> tuple[RefreshToken, Family] | None:
        """Return a token and its family; the family is locked first, then the token is read."""
        family = await self._row(
            "select f.* from auth.refresh_families f join auth.refresh_tokens t "
            "on t.tenant_id = f.tenant_id and t.family_id = f.id "
            "where t.tenant_id = $1 and t.token_sha256 = $2 for update of f",
            sha256,
        )
        token = await self._row(
            "select * from auth.refresh_tokens where tenant_id = $1 and token_sha256 = $2", sha256
        )
        return (to_refresh_token(token), to_family(family)) if token and family else None

    async def kin(self, token: RefreshToken) -> Sequence[RefreshToken]:
        """Return the token's siblings and successors."""
        rows = await self._rows(
            "select * from auth.refresh_tokens where tenant_id = $1 and family_id = $2 "
            "and parent_sha256 = any ($3)",
            token.family_id,
            [sha for sha in (token.parent, token.sha256) if sha is not None],
        )
        return [to_refresh_token(row) for row in rows]

    async def add_token(self, token: RefreshToken) -> None:
        """Insert a refresh token."""
        await self._execute(
            "insert into auth.refresh_tokens "
            "(tenant_id, token_sha256, family_id, parent_sha256, created_at, expires_at) "
            "values ($1, $2, $3, $4, $5, $6)",
            token.sha256,
            token.family_id,
            token.parent,
            token.created_at,
            token.expires_at,
        )

    async def mark_used(self, sha256: bytes, request_id: str, now: datetime) -> None:
        """Mark a refresh token as exchanged."""
        await self._execute(
            "update auth.refresh_tokens set used_at = $3, used_request_id = $4 "
            "where tenant_id = $1 and token_sha256 = $2",
            sha256,
            now,
            request_id,
        )

    async def revoke_family(self, family_id: str, reason: str, now: datetime) -> None:
        """End a family; the first reason stays."""
        await self._revoke("id = $2", family_id, reason, now)

    async def revoke_families_of(self, user_id: str, reason: str, now: datetime) -> None:
        """End all families of a user."""
        await self._revoke("user_id = $2", user_id, reason, now)

    async def revoke_families_from(self, key_id: str, now: datetime) -> None:
        """End all families that an API key was exchanged for."""
        await self._revoke("api_key_id = $2", key_id, "api_key", now)

    async def _revoke(
        self, condition: LiteralString, value: str, reason: str, now: datetime
    ) -> None:
        await self._execute(
            f"update auth.refresh_families set revoked_at = $3, revoked_for = $4 "  # noqa: S608
            f"where tenant_id = $1 and {condition} and revoked_at is null",
            value,
            now,
            reason,
        )

    async def _execute(self, sql: str, *arguments: object) -> str:
        status: str = await self._connection.execute(sql, self._tenant_id, *arguments)
        return status

    async def _row(self, sql: str, *arguments: object) -> Any:
        return await self._connection.fetchrow(sql, self._tenant_id, *arguments)

    async def _rows(self, sql: str, *arguments: object) -> Sequence[Any]:
        rows: Sequence[Any] = await self._connection.fetch(sql, self._tenant_id, *arguments)
        return rows


def _place(after: Cursor | None) -> tuple[datetime | None, str]:
    return (after.created_at, after.id) if after else (None, "")
