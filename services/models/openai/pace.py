"""How many replies one upstream is asked for at once: as many as it does well, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from services.models.config import Upstream
from services.models.openai.first_text import FirstTextTimes
from services.runtime.adaptive import Places
from services.runtime.aimd import AdaptiveLimit
from services.runtime.clock import Clock
from services.runtime.errors import AppError
from services.runtime.logs import get_logger

RETRY_AFTER_S = 1.0


class Strained(AppError):
    """The error of a server that has more to do than it can: it says so, or keeps silent."""


class Pace:
    """The places of one upstream; `Upstream.concurrency` is the most and what it starts with."""

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        most = upstream.concurrency
        self._name = upstream.name
        self._queue = upstream.queue
        self._clock = clock
        self._limit = AdaptiveLimit(least=1, first=most, most=most)
        self._places = Places(self._limit, upstream.name)
        self._times = FirstTextTimes()

    @property
    def limit(self) -> int:
        """How many replies it is asked for at once now."""
        return self._limit.value

    @property
    def running(self) -> int:
        """How many replies it writes now."""
        return self._places.running

    @property
    def waiting(self) -> int:
        """How many replies wait for a place."""
        return self._places.waiting

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it for one reply, all tries of it.

        Raises:
            AppError: OVERLOADED if as many wait as may.

        """
        if self._places.must_wait and self._places.waiting >= self._queue:
            raise self._places.refusal(RETRY_AFTER_S)
        async with self._places.hold():
            began = self._clock.monotonic()
            try:
                yield
            except Strained:
                # After the first text: what failed before it has been counted, try by try.
                self._fall(began, "fell silent")
                raise

    @contextmanager
    def first_text(self, prompt_chars: int | None) -> Iterator[None]:
        """Surround the wait for one attempt's first text.

        Args:
            prompt_chars: length of the prompt; None if the time tells nothing, because what comes
                first comes when all is written (a tool call).

        """
        began = self._clock.monotonic()
        try:
            yield
        except Strained as error:
            self._fall(began, str(error))
            raise
        except asyncio.CancelledError:
            # Whoever asked had waited long enough: that is late as well.
            self._judge(prompt_chars, began)
            raise
        if self._judge(prompt_chars, began):
            self._rise()
        if prompt_chars is not None:
            self._times.add(prompt_chars, self._clock.monotonic() - began)

    def start_slowly(self) -> None:
        """Begin with one reply at once: the server has just come back."""
        self._limit.start_slowly(self._clock.monotonic())
        self._changed("it is back")

    def _judge(self, prompt_chars: int | None, began: float) -> bool:
        """Return whether the time since `began` is in order, and lower the limit if not."""
        if prompt_chars is None:
            return True
        if not self._times.late(prompt_chars, self._clock.monotonic() - began):
            return True
        self._fall(began, "first text late")
        return False

    def _rise(self) -> None:
        if self._places.full:
            self._limit.rise()
            self._places.limit_changed()

    def _fall(self, began: float, why: str) -> None:
        if self._limit.fall(began, self._clock.monotonic()):
            self._changed(why)

    def _changed(self, why: str) -> None:
        self._places.limit_changed()
        get_logger().info("upstream_limit", upstream=self._name, limit=self.limit, why=why)
