"""A model that sleeps and wakes, and is asked after waking what it was asked before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from services.models.engines.engine import SleepLevel
from services.models.failures import away, bad_response

PROBE_LIMIT_S = 30.0
"""A few tokens take much less, after waking too."""

Probe = Callable[[], Awaitable[Sequence[int]]]
"""Gives the tokens of a short reply that is the same each time."""


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
        probe: a short reply.

    """

    def __init__(self, model: str, engine: Sleepable, probe: Probe) -> None:
        self._model = model
        self._engine = engine
        self._probe = probe
        self._level: SleepLevel | None = None
        self._expected: Sequence[int] = ()
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
        """Go to sleep; does nothing to a model that does. Running requests are given up."""
        async with self._turn:
            if self._level is None:
                self._expected = await self._probed()
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
            await self._take_back(self._level)
            if list(await self._probed()) != list(self._expected):
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

    async def _probed(self) -> Sequence[int]:
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                return await self._probe()
        except TimeoutError:
            raise bad_response(self._model, "it did not answer a short question") from None
