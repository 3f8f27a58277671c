"""Forgets what has no use any more: expired sign-ins, answers of old requests, old failures."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from services.auth.login_limits import MEMORY
from services.runtime.clock import Clock
from services.runtime.errors import AppError
from services.runtime.logs import get_logger
from services.runtime.postgres import Database

_PERIOD_S = 3600.0
# No client repeats a request after so long.
_ANSWERS_KEPT = timedelta(days=1)
# An expired token is told apart from an unknown one for a while.
_FAMILIES_KEPT = timedelta(days=7)


async def prune(database: Database, clock: Clock) -> None:
    """Delete once, tenant by tenant, as role `auth_jobs`."""
    now = clock.now()
    async with database.transaction() as connection:
        await connection.execute(
            "delete from auth.login_failures where last_failure_at < $1", now - MEMORY
        )
        tenants = await connection.fetch("select id from auth.tenants")
    for row in tenants:
        async with database.transaction() as connection:
            await connection.execute("select set_config('app.tenant_id', $1, true)", row["id"])
            await connection.execute(
                "delete from auth.refresh_families where expires_at < $1", now - _FAMILIES_KEPT
            )
            await connection.execute(
                "delete from auth.requests where created_at < $1", now - _ANSWERS_KEPT
            )


async def keep_pruned(database: Database, clock: Clock) -> None:
    """Prune every hour until cancelled; a database that is away is tried again next time."""
    while True:
        try:
            await prune(database, clock)
        except AppError as error:
            get_logger().warning("prune_failed", reason=error.reason)
        await asyncio.sleep(_PERIOD_S)
