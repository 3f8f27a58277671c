"""Waking the outbox runner when another process commits jobs: LISTEN past any pooler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from services.memory.postgres.outbox import CHANNEL
from services.runtime.errors import AppError
from services.runtime.postgres import connect_direct

RECONNECT_S = 2.0
"""Pause before connecting again; meanwhile the runner polls as often."""


async def listen(dsn: str, wake: Callable[[], None]) -> None:
    """Call ``wake`` on every notification, reconnecting for ever."""
    while True:
        try:
            await _until_closed(dsn, wake)
        except (AppError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.sleep(RECONNECT_S)


async def _until_closed(dsn: str, wake: Callable[[], None]) -> None:
    closed = asyncio.Event()
    connection = await connect_direct(dsn, name="memory-listen")
    connection.add_termination_listener(lambda _: closed.set())

    def notified(*_: Any) -> None:
        wake()

    try:
        await connection.add_listener(CHANNEL, notified)
        wake()
        await closed.wait()
    finally:
        await connection.close(timeout=RECONNECT_S)
