"""Putting an SDK to a case."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.conformance.cases import CaseFunction
from tests.conformance.sdk import Sdk
from tests.conformance.world import Case, World


async def perform(case: CaseFunction, world: World, sdk: Sdk) -> None:
    """Put an SDK to one case."""
    async with AsyncExitStack() as stack:
        await case(Case(world, sdk, case.__name__, stack))


class Performances:
    """SDKs at their cases side by side, since a case mostly waits; tests ask what came of it."""

    def __init__(self, world: World, at_once: int) -> None:
        self._world = world
        self._places = asyncio.Semaphore(at_once)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def begin(self, case: CaseFunction, sdk: Sdk) -> None:
        """Put an SDK to a case as soon as there is a place."""
        self._tasks[case.__name__, sdk.name] = asyncio.create_task(self._perform(case, sdk))

    async def _perform(self, case: CaseFunction, sdk: Sdk) -> None:
        async with self._places:
            await perform(case, self._world, sdk)

    async def outcome(self, case: str, sdk: str) -> None:
        """Wait for the end; raises what the case raised."""
        await self._tasks[case, sdk]

    async def stop(self) -> None:
        """End what nobody waits for any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def driver(sdks: dict[str, Sdk], name: str) -> Sdk:
    """The driver of an SDK; the test skips where its language is not."""
    if name not in sdks:
        pytest.skip(f"the tools of {name} are not on this machine")
    return sdks[name]
