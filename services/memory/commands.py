"""`python -m services.memory migrate|reconcile|rebuild`: an operator's commands.

The embedded index belongs to the running service, so reconcile and rebuild only ask for the work;
the service does it, now or when it is next up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from services.memory.config import MemorySettings
from services.memory.postgres.job_store import PostgresJobStore
from services.memory.reconcile import rebuild, summary
from services.memory.server import MIGRATIONS, jobs_database, required
from services.memory.store import JobStore
from services.runtime.errors import AppError
from services.runtime.migrate import MigrationError, migrate_service

WAIT_S = 60.0
"""How long a command waits for the running service before it says that the work is queued."""

POLL_S = 0.5

EXIT_FAILED, EXIT_USAGE = 1, 64


def run_command(settings: MemorySettings, arguments: Sequence[str]) -> int:
    """Run one command and return the process' exit status."""
    command = COMMANDS.get(arguments[0]) if len(arguments) == 1 else None
    if command is None:
        sys.stderr.write(f"usage: python -m services.memory [{'|'.join(COMMANDS)}]\n")
        return EXIT_USAGE
    try:
        sys.stdout.write(f"{asyncio.run(command(settings))}\n")
    except (AppError, MigrationError, OSError) as error:
        message = error.message if isinstance(error, AppError) else str(error)
        sys.stderr.write(f"echomesh: {message}\n")
        return EXIT_FAILED
    return 0


async def migrate(settings: MemorySettings) -> str:
    """Bring the schema up to date."""
    dsn = required(settings.database_direct_url, "database_direct_url")
    applied = await migrate_service("memory", dsn, MIGRATIONS, wait_s=settings.database_wait_s)
    return f"applied: {', '.join(applied) or 'nothing, the schema is up to date'}"


async def reconcile_index(settings: MemorySettings) -> str:
    """Ask for a reconciliation and wait for what it finds."""
    database = jobs_database(settings)
    try:
        store = PostgresJobStore(database)
        await store.ask_reconcile()
        if not await _waited(lambda: _is_reconciled(store)):
            return "asked for; it runs when the memory service is up"
        return f"reconciled: {summary(await store.report())}"
    finally:
        await database.close()


async def rebuild_index(settings: MemorySettings) -> str:
    """Queue every memory for the index and wait until it is through."""
    database = jobs_database(settings)
    try:
        store = PostgresJobStore(database)
        queued = await rebuild(store)
        if not await _waited(lambda: _is_drained(store)):
            waiting, held, _ = await store.lag()
            return f"queued {queued} memories; {waiting} wait, {held} are held"
        return f"rebuilt: {queued} memories"
    finally:
        await database.close()


async def _is_reconciled(store: JobStore) -> bool:
    return not (await store.state()).reconcile_wanted


async def _is_drained(store: JobStore) -> bool:
    return (await store.lag())[0] == 0


async def _waited(condition: Callable[[], Awaitable[bool]]) -> bool:
    ends = time.monotonic() + WAIT_S
    while not await condition():
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(POLL_S)
    return True


COMMANDS: Mapping[str, Callable[[MemorySettings], Coroutine[Any, Any, str]]] = {
    "migrate": migrate,
    "reconcile": reconcile_index,
    "rebuild": rebuild_index,
}
