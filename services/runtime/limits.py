"""Bounded concurrency: so many at once, so many waiting, the rest are refused at once."""

from __future__ import annotations

import asyncio
from types import TracebackType

from services.runtime.errors import AppError, Reason


class Gate:
    """Async context manager that lets `limit` bodies run at once and `queue_limit` more wait.

    Waiters enter in the order they came. One more than that is refused with
    `AppError(OVERLOADED)` carrying `retry_after_s`: a queue that only grows helps nobody.
    """

    def __init__(
        self, limit: int, queue_limit: int, *, retry_after_s: float = 1.0, name: str = "requests"
    ) -> None:
        if limit < 1 or queue_limit < 0:
            raise ValueError("limit must be at least 1 and queue_limit at least 0")
        self._slots = asyncio.Semaphore(limit)
        self._queue_limit = queue_limit
        self._retry_after_s = retry_after_s
        self._name = name
        self._running = 0
        self._waiting = 0

    @property
    def running(self) -> int:
        """How many bodies run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return self._waiting

    def require_room(self) -> None:
        """Raise AppError OVERLOADED if one that comes now could neither run nor wait."""
        if self._slots.locked() and self._waiting >= self._queue_limit:
            raise AppError(
                Reason.OVERLOADED,
                f"too many {self._name} at once; try again later",
                metadata={"queue": self._name},
                retry_after_s=self._retry_after_s,
            )

    async def __aenter__(self) -> Gate:
        self.require_room()
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._running -= 1
        self._slots.release()
