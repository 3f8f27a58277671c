"""Postgres for request handlers and jobs, safe behind PgBouncer in transaction mode.

Every statement runs in an explicit transaction, settings are local to one, and nothing waits
without a limit. Statements are kept prepared where the server itself answers, and only there: a
pooler may hand each transaction to another server. That the database is away is told to callers in
one way only: `AppError(DEPENDENCY_UNAVAILABLE)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from services.runtime.errors import AppError, Reason, unavailable

Connection: TypeAlias = "PoolConnectionProxy[Any]"
"""A pooled connection inside a transaction."""

COMMAND_TIMEOUT_S = 5.0
"""Longer than any statement a request needs; the roles' statement_timeout says the same."""

ACQUIRE_TIMEOUT_S = 2.0
"""A caller waits this long for a free connection before it is told that Postgres is away."""

CONNECT_TIMEOUT_S = 2.0

RELEASE_TIMEOUT_S = 1.0
"""A frozen server must not hold up the caller that gives a connection back."""

CLOSE_TIMEOUT_S = 5.0

MAX_SIZE = 8

PREPARED_STATEMENTS = 200
"""Kept by each connection; a service has fewer. Planning one over the partitioned tables costs
more than running it."""

_DIRECT_SETTINGS = {
    # One plan for all users: partitions are pruned when it runs, and none is planned for.
    "plan_cache_mode": "force_generic_plan",
}

_DEPENDENCY = "postgres"

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # the old primary after a failover
    asyncpg.InternalClientError,  # a connection torn down under a running statement
)

_NO_ANSWER = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresError,
    OSError,
)

_BUSY = (
    asyncpg.QueryCanceledError,  # statement_timeout
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCachedStatementError,  # a migration ran; the next try prepares it anew
)

# One trip for both. The names travel as hexadecimal digits, so that nothing in them is SQL.
_BEGIN_AS = """begin {mode};
select set_config('app.tenant_id', convert_from(decode('{tenant}', 'hex'), 'UTF8'), true),
  set_config('app.user_id', convert_from(decode('{user}', 'hex'), 'UTF8'), true)"""


class Subject(Protocol):
    """Whose rows a transaction may see; `services.runtime.identity.Identity` is one."""

    @property
    def tenant_id(self) -> str:
        """Tenant of the rows."""

    @property
    def user_id(self) -> str:
        """User of the rows."""


class _PooledConnection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        """Nothing to reset: settings are local, and a pooler may hand us another server."""
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:
        """Roll back what a cancelled call left open: no error, though asyncpg would log it as one.

        While the cancel was on its way to the server, the call itself could not.
        """
        async with asyncio.timeout(timeout):
            if self.is_in_transaction():
                await self.execute("rollback")
            await super().reset()


class Database:
    """A bounded pool of connections as one role."""

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        max_size: int = MAX_SIZE,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        """Describe the pool; no connection is made before the first use.

        Args:
            dsn: address, with role and password; may lead to PgBouncer.
            name: shown by the server as `application_name`.
            max_size: most connections at once.
            command_timeout_s: limit for one statement.

        """
        self._dsn = dsn
        self._name = name
        self._max_size = max_size
        self._command_timeout_s = command_timeout_s
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening: asyncio.Task[asyncpg.Pool[Any]] | None = None

    @asynccontextmanager
    async def transaction(self, *, readonly: bool = False) -> AsyncIterator[Connection]:
        """One transaction without a tenant: row-level security then shows no user's rows.

        Raises:
            AppError: DEPENDENCY_UNAVAILABLE when Postgres is away, frozen or overloaded,
                STORAGE_FULL when its disk is full.

        """
        async with self._connection() as connection, connection.transaction(readonly=readonly):
            yield connection

    @asynccontextmanager
    async def tenant(
        self, subject: Subject, *, readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """One transaction that sees the rows of `subject`'s tenant and user only.

        Raises:
            AppError: as `transaction`.

        """
        if not subject.tenant_id or not subject.user_id:
            raise ValueError("a tenant's transaction needs a tenant and a user")
        begin = _BEGIN_AS.format(
            mode="read only" if readonly else "read write",
            tenant=subject.tenant_id.encode().hex(),
            user=subject.user_id.encode().hex(),
        )
        async with self._connection() as connection:
            await connection.execute(begin)
            try:
                yield connection
            except BaseException:
                # On a lost connection there is nothing to roll back, and the first error counts.
                with suppress(*_NO_ANSWER):
                    await connection.execute("rollback")
                raise
            await connection.execute("commit")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, with errors mapped; it goes back whatever happens."""
        with _ErrorMap():
            pool = await self._opened()
            connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
            try:
                yield connection
            finally:
                await asyncio.shield(_release(pool, connection))

    async def ping(self) -> bool:
        """Whether Postgres answers now (for `doctor` and metrics, never for health)."""
        try:
            async with self.transaction(readonly=True) as connection:
                await connection.fetchval("select 1")
        except AppError:
            return False
        return True

    async def close(self) -> None:
        """Close the connections, waiting a bounded time for those in use."""
        if self._opening is not None:
            self._opening.cancel()
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), CLOSE_TIMEOUT_S)
        except TimeoutError:
            pool.terminate()

    async def _opened(self) -> asyncpg.Pool[Any]:
        """The pool; callers who come while it is being opened share that attempt and its error."""
        if self._pool is not None:
            return self._pool
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_seen)
        return await asyncio.shield(self._opening)

    async def _open(self) -> asyncpg.Pool[Any]:
        direct = await _is_direct(self._dsn, self._command_timeout_s)
        settings = _DIRECT_SETTINGS if direct else {}
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._max_size,
            statement_cache_size=PREPARED_STATEMENTS if direct else 0,
            command_timeout=self._command_timeout_s,
            timeout=CONNECT_TIMEOUT_S,
            max_inactive_connection_lifetime=60.0,
            connection_class=_PooledConnection,
            init=self._still_direct if direct else None,
            server_settings={"application_name": self._name, **settings},
        )
        return self._pool

    async def _still_direct(self, connection: asyncpg.Connection[Any]) -> None:
        """Let the pool go if the address leads to a pooler by now, as it may after a failover."""
        try:
            if await _same_server(connection):
                return
        except asyncpg.PostgresError:
            pass  # a pooler may even confuse the question
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()
        raise ConnectionError("the database is behind a pooler now")


def _seen(opening: asyncio.Task[Any]) -> None:
    """Its error is for those who wait; they may all have gone."""
    if not opening.cancelled():
        opening.exception()


async def _is_direct(dsn: str, command_timeout_s: float) -> bool:
    """Whether no pooler stands between."""
    connection = await asyncpg.connect(
        dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=command_timeout_s, statement_cache_size=0
    )
    try:
        return await _same_server(connection)
    finally:
        connection.terminate()


async def _same_server(connection: asyncpg.Connection[Any]) -> bool:
    """Whether who took the connection is who answers: poolers number theirs themselves."""
    server_pid = await connection.fetchval("select pg_backend_pid()")
    return bool(server_pid == connection.get_server_pid())


async def connect_direct(dsn: str, *, name: str) -> asyncpg.Connection[Any]:
    """Open one connection of its own past any pooler, for LISTEN and session locks.

    Raises:
        AppError: DEPENDENCY_UNAVAILABLE when Postgres is away.

    """
    with _ErrorMap():
        return await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            statement_cache_size=0,
            server_settings={"application_name": name},
        )


def mapped_error(error: BaseException) -> AppError | None:
    """Return what a caller is told about a database error, or None if it is ours to handle."""
    if isinstance(error, asyncpg.CharacterNotInRepertoireError):
        return AppError(Reason.INVALID_REQUEST, "text must not contain the NUL character")
    if isinstance(error, asyncpg.DiskFullError):
        return AppError(Reason.STORAGE_FULL, "the database's disk is full", retry_after_s=30.0)
    if isinstance(error, _BUSY):
        return unavailable(_DEPENDENCY, retry_after_s=0.2)
    if isinstance(error, _AWAY) or _is_closed_connection(error):
        return unavailable(_DEPENDENCY, retry_after_s=0.5)
    return None


def _is_closed_connection(error: BaseException) -> bool:
    # A pool takes a lost connection back from under its user, who then hears of that.
    lost = ("clos", "released back to the pool")
    return isinstance(error, asyncpg.InterfaceError) and any(word in str(error) for word in lost)


class _ErrorMap:
    """Turns database errors that pass through it into AppErrors."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, AppError):
            return
        mapped = mapped_error(error)
        if mapped is not None:
            raise mapped from error


async def _release(pool: asyncpg.Pool[Any], connection: Connection) -> None:
    try:
        await pool.release(connection, timeout=RELEASE_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()  # its state is unknown; the pool makes a new one
