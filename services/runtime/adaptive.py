"""Concurrency that finds its own bound: as much at once as what is behind it answers in time.

While places are short and the work is in time the bound creeps up; when it is late the bound falls
(`aimd`). Who would have to wait too long is refused when they come, not when they have waited: the
expected wait is how many stand before them times the time of one, by the bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.aimd import AdaptiveLimit
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason
from services.runtime.metrics import gauge

# Weight of the newest time in the running mean.
NEWEST_WEIGHT = 0.1
# Who is refused comes again after the expected wait, but not at once.
MIN_RETRY_S = 1.0

_LIMIT = gauge("echomesh_adaptive_limit", "How many may run at once now.", ("gate",))


class Places:
    """Lets as many bodies run at once as `limit` says; the rest wait in the order they came.

    `name` is told to those who are refused, and is the metric's label.
    """

    def __init__(self, limit: AdaptiveLimit, name: str) -> None:
        self._limit = limit
        self._name = name
        self._told = _LIMIT.labels(name)
        self._running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.limit_changed()

    @property
    def running(self) -> int:
        """How many bodies run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether as many run as may."""
        return self._running >= self._limit.value

    @property
    def must_wait(self) -> bool:
        """Whether one that comes now would have to wait."""
        return self.full or bool(self._waiters)

    def limit_changed(self) -> None:
        """Take account of a change of the limit: who waits may come in."""
        self._told.set(self._limit.value)
        while self._waiters and not self.full:
            given = self._waiters.popleft()
            if given.cancelled():
                continue
            self._running += 1
            given.set_result(None)

    def refusal(self, retry_after_s: float) -> AppError:
        """Return OVERLOADED for one that shall not wait."""
        return AppError(
            Reason.OVERLOADED,
            f"too many {self._name} at once; try again later",
            metadata={"queue": self._name},
            retry_after_s=retry_after_s,
        )

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if not self.must_wait:
            self._running += 1
            return
        given = asyncio.get_running_loop().create_future()
        self._waiters.append(given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():
                self._leave()  # the place came together with the cancellation
            elif given in self._waiters:
                self._waiters.remove(given)
            raise

    def _leave(self) -> None:
        self._running -= 1
        self.limit_changed()


class AdaptiveGate:
    """Places whose number follows whether the work is done in time.

    `least` and `most` bound the number, `first` is what it starts with.
    """

    def __init__(self, *, least: int, first: int, most: int, name: str, clock: Clock) -> None:
        self._limit = AdaptiveLimit(least=least, first=first, most=most)
        self._places = Places(self._limit, name)
        self._clock = clock
        self._mean_s = 0.0

    @property
    def limit(self) -> int:
        """How many may run at once now."""
        return self._limit.value

    @property
    def running(self) -> int:
        """How many bodies run now."""
        return self._places.running

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return self._places.waiting

    @property
    def expected_wait_s(self) -> float:
        """How long one that comes now would wait, in seconds; 0 if there is a free place."""
        if not self._places.must_wait:
            return 0.0
        return (self.waiting + 1) * self._mean_s / self.limit

    def require(self, wait_s: float) -> None:
        """Raise AppError OVERLOADED if one that comes now would wait longer than `wait_s`."""
        expected_s = self.expected_wait_s
        if expected_s > wait_s:
            raise self._places.refusal(max(MIN_RETRY_S, expected_s))

    @asynccontextmanager
    async def place(self, in_time_s: float) -> AsyncIterator[None]:
        """Wait for a place and hold it; the work is late if it then takes over `in_time_s`.

        A body that raises or is cancelled tells nothing of the time it would have taken.
        """
        async with self._places.hold():
            began = self._clock.monotonic()
            yield
            self._learn(began, in_time_s)

    def _learn(self, began: float, in_time_s: float) -> None:
        now = self._clock.monotonic()
        took_s = now - began
        self._mean_s += NEWEST_WEIGHT * (took_s - self._mean_s)
        if took_s > in_time_s:
            self._limit.fall(began, now)
        elif self._places.full:
            self._limit.rise()
