"""The store on Postgres. Row-level security does the separating; `app.tenant_id` says for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from services.auth.login_limits import Failures, count_failure, uncount_failure, wait_s
from services.auth.model import ApiKey, SigningKey, Tenant
from services.auth.postgres_rows import to_api_key, to_signing_key, to_tenant
from services.auth.postgres_transaction import PostgresTransaction
from services.auth.store import TenantTransaction
from services.runtime.audit import AuditEvent, AuditLog
from services.runtime.postgres import Connection, Database

# Advisory lock that lets one replica at a time publish a signing key ("keys").
_KEYS_LOCK = 0x6B657973
_SET = "select set_config($1, $2, true)"


class PostgresStore:
    """`Store` over a pool of connections as role `auth_app`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = AuditLog("auth")

    @asynccontextmanager
    async def tenant(self, tenant_id: str) -> AsyncIterator[TenantTransaction]:
        """Open a transaction inside a tenant."""
        async with self._database.transaction() as connection:
            await connection.execute(_SET, "app.tenant_id", tenant_id)
            transaction = PostgresTransaction(connection, tenant_id)
            yield transaction
            written = await transaction.write_audited(self._log)
        self._log.announce(written)

    async def tenant_named(self, name: str) -> Tenant | None:
        """Return a tenant by name."""
        async with self._database.transaction(readonly=True) as connection:
            await connection.execute(_SET, "app.tenant_name", name)
            row = await connection.fetchrow("select * from auth.tenants where name = $1", name)
        return to_tenant(row) if row else None

    async def api_key(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        """Return a key and the hash of its secret by id, of whatever tenant."""
        async with self._database.transaction(readonly=True) as connection:
            await connection.execute(_SET, "app.api_key_id", key_id)
            row = await connection.fetchrow("select * from auth.api_keys where id = $1", key_id)
        return (to_api_key(row), row["secret_sha256"]) if row else None

    async def reserve_login(self, key: bytes, now: datetime) -> float:
        """Count an attempt as failed before it is made; return the seconds to wait instead."""
        async with self._database.transaction() as connection:
            failures = await _lock_failures(connection, key)
            wait = wait_s(failures, now)
            if wait > 0:
                return wait
            await _save_failures(connection, key, count_failure(failures, now))
            return 0.0

    async def release_login(self, key: bytes, attempted_at: datetime) -> None:
        """Take back what `reserve_login` counted at that time."""
        async with self._database.transaction() as connection:
            failures = await _lock_failures(connection, key)
            if failures is None:
                return
            left = uncount_failure(failures, attempted_at)
            if left is None:
                await _delete_failures(connection, key)
            else:
                await _save_failures(connection, key, left)

    async def forget_failures(self, key: bytes) -> None:
        """Forget the failures after a success."""
        async with self._database.transaction() as connection:
            await _delete_failures(connection, key)

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return all signing keys, the newest first."""
        async with self._database.transaction(readonly=True) as connection:
            rows = await connection.fetch(
                "select * from auth.signing_keys order by signs_from desc, id desc"
            )
        return [to_signing_key(row) for row in rows]

    async def add_signing_key(
        self, key: SigningKey, retire_others_at: datetime | None, tenant_id: str, event: AuditEvent
    ) -> bool:
        """Publish a key and set when those before it retire; False: another was published since."""
        async with self._database.transaction() as connection:
            await connection.execute("select pg_advisory_xact_lock($1)", _KEYS_LOCK)
            since = None if retire_others_at is None else key.created_at
            if await connection.fetchval(
                "select exists (select from auth.signing_keys "
                "where $1::timestamptz is null or signs_from > $1)",
                since,
            ):
                return False
            await connection.execute(
                "update auth.signing_keys set retires_at = $1 where retires_at is null",
                retire_others_at,
            )
            await _insert_signing_key(connection, key)
            await connection.execute(_SET, "app.tenant_id", tenant_id)
            written = await self._log.append(connection, tenant_id, [event])
        self._log.announce(written)
        return True


async def _lock_failures(connection: Connection, key: bytes) -> Failures | None:
    """Read the failures; other transactions with this key wait until this one has ended."""
    lock = int.from_bytes(key[:8], signed=True)
    await connection.execute("select pg_advisory_xact_lock($1)", lock)
    row = await connection.fetchrow(
        "select failures, last_failure_at, blocked_until from auth.login_failures "
        "where account_network_sha256 = $1",
        key,
    )
    return Failures(*row) if row else None


async def _save_failures(connection: Connection, key: bytes, failures: Failures) -> None:
    await connection.execute(
        "insert into auth.login_failures values ($1, $2, $3, $4) "
        "on conflict (account_network_sha256) do update set failures = excluded.failures, "
        "last_failure_at = excluded.last_failure_at, blocked_until = excluded.blocked_until",
        key,
        failures.count,
        failures.last_at,
        failures.blocked_until,
    )


async def _delete_failures(connection: Connection, key: bytes) -> None:
    await connection.execute(
        "delete from auth.login_failures where account_network_sha256 = $1", key
    )


async def _insert_signing_key(connection: Connection, key: SigningKey) -> None:
    await connection.execute(
        "insert into auth.signing_keys "
        "(id, public_key, wrapped_key, created_at, signs_from) values ($1, $2, $3, $4, $5)",
        key.id,
        key.public_key,
        key.wrapped_key,
        key.created_at,
        key.signs_from,
    )
