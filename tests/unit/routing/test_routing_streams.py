"""Runners of one turn in one process: the one with the highest epoch runs, all others end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from services.routing.domain import Frame, TextDelta
from services.routing.streams import Background, Emit, TurnHandle, TurnTable
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason

KEY = ("tenant", "alice", "r1")


class Runner:
    """A runner of the turn that claims its epoch when told to, and then talks until stopped."""

    def __init__(self, table: TurnTable, epoch: int) -> None:
        self._table = table
        self._epoch = epoch
        self.may_claim = asyncio.Event()
        self.frames: AsyncGenerator[Frame, None] = table.run(KEY, self._work, detach=False)
        self.handle = TurnHandle()

    async def _work(self, emit: Emit, handle: TurnHandle) -> None:
        self.handle = handle
        await emit(TextDelta("before"))
        await self.may_claim.wait()
        self._table.claim(KEY, handle, self._epoch)
        await emit(TextDelta("after"))
        await asyncio.Event().wait()

    async def begin(self) -> None:
        """Run up to the claim."""
        assert await anext(self.frames) == TextDelta("before")

    async def claim(self) -> None:
        """Claim, and be the one that runs."""
        self.may_claim.set()
        assert await anext(self.frames) == TextDelta("after")

    async def refusal(self) -> AppError:
        """What its client is told in the end."""
        with pytest.raises(AppError) as refused:
            async with asyncio.timeout(30):
                while True:
                    await anext(self.frames)
        return refused.value


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def table(clock: FakeClock) -> TurnTable:
    return TurnTable(Background(), clock)


async def both(table: TurnTable) -> tuple[Runner, Runner]:
    """An older and a newer runner, neither of which knows its epoch yet."""
    older, newer = Runner(table, 1), Runner(table, 2)
    await older.begin()
    await newer.begin()
    return older, newer


async def test_an_older_runner_is_stopped_by_a_newer_one(table: TurnTable) -> None:
    older, newer = await both(table)
    await older.claim()
    await newer.claim()
    refused = await older.refusal()
    assert (refused.reason, refused.metadata) == (Reason.TURN_SUPERSEDED, {"epoch": "2"})
    assert not newer.handle.superseded_by
    await newer.frames.aclose()


async def test_a_late_runner_with_a_lower_epoch_is_stopped_when_it_learns_of_it(
    table: TurnTable,
) -> None:
    """Its writes would be refused anyway: all it can do is burn a model's time."""
    older, newer = await both(table)
    await newer.claim()
    older.may_claim.set()
    refused = await older.refusal()
    assert (refused.reason, refused.metadata) == (Reason.TURN_SUPERSEDED, {"epoch": "2"})
    assert older.handle.task is not None
    assert older.handle.task.done()
    assert not newer.handle.superseded_by
    await newer.frames.aclose()


async def test_a_late_runner_is_stopped_although_the_newer_one_has_ended(table: TurnTable) -> None:
    older, newer = await both(table)
    await newer.claim()
    await newer.frames.aclose()
    assert newer.handle.task is not None
    await asyncio.wait({newer.handle.task})
    older.may_claim.set()
    assert (await older.refusal()).reason is Reason.TURN_SUPERSEDED


async def test_an_ended_runner_that_learns_its_epoch_stops_older_ones_and_runs_nothing(
    table: TurnTable,
) -> None:
    """Its begin was answered after its client had left."""
    older, newer = await both(table)
    await older.claim()
    await newer.frames.aclose()
    assert newer.handle.task is not None
    await asyncio.wait({newer.handle.task})
    table.claim(KEY, newer.handle, 2)
    assert (await older.refusal()).reason is Reason.TURN_SUPERSEDED
    assert table.running == 0


async def test_epochs_are_forgotten_after_the_longest_call(
    table: TurnTable, clock: FakeClock
) -> None:
    """So the table stays small; Postgres refuses the writes for ever."""
    older, newer = await both(table)
    await newer.claim()
    await newer.frames.aclose()
    clock.advance(3600)
    await older.claim()
    await older.frames.aclose()
