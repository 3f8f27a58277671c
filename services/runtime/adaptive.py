"""Concurrency that finds its own bound: as much at once as what is behind it answers in time.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain 1989) and Netflix's
concurrency-limits: while places are short and the work is in time the bound creeps up; when it is
late the bound falls. Who would have to wait too long is refused when they come, not when they have
waited: the expected wait is how many stand before them times the time of one, by the bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason
from services.runtime.metrics import gauge

# What is left of the bound when the work is late; one late burst cuts it once.
DECREASE = 0.8
# Weight of the newest time in the running mean.
NEWEST_WEIGHT = 0.1
# Who is refused comes again after the expected wait, but not at once.
MIN_RETRY_S = 1.0

_LIMIT = gauge("echomesh_adaptive_limit", "How many may run at once now.", ("gate",))


class AdaptiveGate:
    """Lets a changing number of bodies run at once; the rest wait in the order they came.

    `least` and `most` bound the number, `first` is what it starts with; `name` is told to those
    who are refused.
    """

    def __init__(self, *, least: int, first: int, most: int, name: str, clock: Clock) -> None:
        if not 1 <= least <= first <= most:
            raise ValueError("1 <= least <= first <= most must hold")
        self._least, self._limit, self._most = least, float(first), most
        self._told = _LIMIT.labels(name)
        self._told.set(first)
        self._name = name
        self._clock = clock
        self._running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._mean_s = 0.0
        self._cut_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many may run at once now."""
        return int(self._limit)

    @property
    def running(self) -> int:
        """How many bodies run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return len(self._waiters)

    @property
    def expected_wait_s(self) -> float:
        """How long one that comes now would wait, in seconds; 0 if there is a free place."""
        if not self._must_wait:
            return 0.0
        return (self.waiting + 1) * self._mean_s / self.limit

    def require(self, wait_s: float) -> None:
        """Raise AppError OVERLOADED if one that comes now would wait longer than `wait_s`."""
        expected_s = self.expected_wait_s
        if expected_s > wait_s:
            raise AppError(
                Reason.OVERLOADED,
                f"too many {self._name} at once; try again later",
                metadata={"queue": self._name},
                retry_after_s=max(MIN_RETRY_S, expected_s),
            )

    @asynccontextmanager
    async def place(self, in_time_s: float) -> AsyncIterator[None]:
        """Wait for a place and hold it; the work is late if it then takes over `in_time_s`.

        A body that raises or is cancelled tells nothing of the time it would have taken.
        """
        await self._enter()
        began = self._clock.monotonic()
        try:
            yield
            self._learn(began, in_time_s)
        finally:
            self._leave()

    @property
    def _must_wait(self) -> bool:
        return self._running >= self.limit or bool(self._waiters)

    async def _enter(self) -> None:
        if not self._must_wait:
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
        while self._waiters and self._running < self.limit:
            given = self._waiters.popleft()
            if given.cancelled():
                continue
            self._running += 1
            given.set_result(None)

    def _learn(self, began: float, in_time_s: float) -> None:
        now = self._clock.monotonic()
        took_s = now - began
        self._mean_s += NEWEST_WEIGHT * (took_s - self._mean_s)
        if took_s <= in_time_s:
            if self._running >= self.limit:
                self._limit = min(self._most, self._limit + 1 / self._limit)
        elif began >= self._cut_at:
            # What began before the last cut was late for the bound that was.
            self._cut_at = now
            self._limit = max(self._least, self._limit * DECREASE)
        self._told.set(self.limit)
