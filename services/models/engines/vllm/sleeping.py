"""A model that sleeps and wakes, and is asked after waking what it was asked before."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from services.models.engines.engine import Gone, SleepLevel
from services.models.failures import away, bad_response, overloaded
from services.runtime.errors import AppError

PROBE_LIMIT_S = 30.0
"""A few tokens take much less, after waking too."""

Probe = Callable[[], Awaitable[Sequence[float]]]
"""Gives an answer that is the same each time: the tokens of a short reply, or a text's vector."""

# Between unit vectors: what other requests in the same step change in numbers of 16 bits is less,
# and any other token is further away.
_SAME_WITHIN = 0.05


class Sleepable(Protocol):
    """What of `AsyncLLM` is about sleeping."""

    async def sleep(self, level: int = 1) -> Any:
        """Free the GPU: weights to the machine's memory (1), or away (2)."""
        ...

    async def wake_up(self, tags: list[str] | None = None) -> Any:
        """Take memory again, for what the tags name ("weights", "kv_cache") or for all."""
        ...

    async def collective_rpc(self, method: str) -> Any:
        """Call a method of every worker of the engine."""
        ...


class Sleeper:
    """Puts one engine to sleep and wakes it; the engine's sleep has had wrong outputs before.

    Args:
        model: the model's id.
        engine: what sleeps.
        probe: asks it something short.
        gone: told when it stands between sleeping and waking and nobody can say how.

    """

    def __init__(self, model: str, engine: Sleepable, probe: Probe, gone: Gone) -> None:
        self._model = model
        self._engine = engine
        self._probe = probe
        self._gone = gone
        self._level: SleepLevel | None = None
        self._expected: Sequence[float] = ()
        self._turn = asyncio.Lock()

    @property
    def turning(self) -> bool:
        """Whether the model is just going to sleep or waking up."""
        return self._turn.locked()

    def require_awake(self) -> None:
        """Raise MODEL_UNAVAILABLE while the model sleeps."""
        if self._level is not None:
            raise away(self._model, "is asleep")

    async def sleep(self, level: SleepLevel) -> None:
        """Go to sleep; does nothing to a model that does. Running requests are given up.

        Raises:
            AppError: OVERLOADED when it is too busy to be asked before; it goes on then.

        """
        async with self._turn:
            if self._level is not None:
                return
            try:
                self._expected = await self._probed()
            except TimeoutError:
                raise overloaded(self._model) from None
            with self._fatal("it could not go to sleep"):
                self._level = level
                await self._engine.sleep(level.value)

    async def wake(self) -> None:
        """Wake up; does nothing to a model that is awake.

        Raises:
            AppError: MODEL_BAD_RESPONSE when it does not answer as it did before. It stays closed
                to requests then.

        """
        async with self._turn:
            if self._level is None:
                return
            with self._fatal("it could not wake up"):
                await self._take_back(self._level)
                if not _same(await self._probed(), self._expected):
                    raise bad_response(self._model, "it woke up changed")
                self._level = None

    async def _take_back(self, level: SleepLevel) -> None:
        if level is SleepLevel.KEEP_WEIGHTS:
            await self._engine.wake_up()
            return
        # The cache comes last: reading the weights needs room that it would take.
        await self._engine.wake_up(["weights"])
        await self._engine.collective_rpc("reload_weights")
        await self._engine.wake_up(["kv_cache"])

    async def _probed(self) -> Sequence[float]:
        async with asyncio.timeout(PROBE_LIMIT_S):
            return await self._probe()

    @contextmanager
    def _fatal(self, why: str) -> Iterator[None]:
        """Surround what must not fail half-way, or be given up there: the engine is lost then."""
        try:
            yield
        except (AppError, asyncio.CancelledError):
            self._gone(why)
            raise
        except Exception as error:
            self._gone(why)
            raise bad_response(self._model, why) from error


def _same(answer: Sequence[float], expected: Sequence[float]) -> bool:
    return len(answer) == len(expected) and math.dist(answer, expected) <= _SAME_WITHIN
