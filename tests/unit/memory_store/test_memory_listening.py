"""What wakes the outbox runner goes on whatever becomes of its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from services.memory import listening


class _Connection:
    """A connection that breaks, in the ways that asyncpg's do, as often as it is told to."""

    errors: list[Exception]

    def add_termination_listener(self, callback: Callable[[object], None]) -> None:
        pass

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        if self.errors:
            raise self.errors.pop()

    async def close(self, timeout: float | None = None) -> None:
        pass


async def test_a_connection_that_breaks_while_it_begins_to_listen_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = _Connection()
    connection.errors = [
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionResetError("reset"),
    ]

    async def connect(dsn: str, *, name: str) -> _Connection:
        return connection

    monkeypatch.setattr(listening, "connect_direct", connect)
    monkeypatch.setattr(listening, "RECONNECT_S", 0.0)
    woken = asyncio.Event()
    async with asyncio.timeout(30):
        task = asyncio.create_task(listening.listen("dsn", woken.set))
        waking = asyncio.create_task(woken.wait())
        await asyncio.wait({task, waking}, return_when=asyncio.FIRST_COMPLETED)
    assert woken.is_set()
    assert not task.done()
    task.cancel()
