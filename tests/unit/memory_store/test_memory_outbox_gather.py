"""How outbox runners wait for work."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from services.memory.model import Job, Owner
from services.memory.outbox import OutboxLimits, OutboxRunner


class Queue:
    """A job store of which only claim and done are used."""

    def __init__(self) -> None:
        self.due: list[Job] = []
        self.claims = 0
        self.done_ids: set[uuid.UUID] = set()

    async def claim(self, limit: int, lease_s: float) -> list[Job]:
        self.claims += 1
        taken, self.due = self.due[:limit], self.due[limit:]
        return taken

    async def done(self, jobs: Sequence[Job]) -> None:
        self.done_ids |= {job.memory_id for job in jobs}

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not expected")


def _job() -> Job:
    return Job(owner=Owner("t", "u"), memory_id=uuid.uuid4(), generation=1, attempts=0)


async def test_what_is_stored_shortly_after_a_wake_up_is_done_in_the_same_batch() -> None:
    """A busy service indexes in few batches; every job is done all the same."""
    queue, batches = Queue(), []

    async def work(jobs: Sequence[Job]) -> None:
        batches.append(len(jobs))

    runner = OutboxRunner(queue, work, OutboxLimits(concurrent=2))  # type: ignore[arg-type]
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(20):
        while not queue.claims:
            await asyncio.sleep(0)
        jobs = [_job() for _ in range(10)]
        for job in jobs:
            queue.due.append(job)
            runner.wake()
            await asyncio.sleep(0)
        while len(queue.done_ids) < len(jobs):
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert batches == [10]
    assert queue.done_ids == {job.memory_id for job in jobs}


async def test_a_full_batch_is_followed_by_the_next_without_a_pause() -> None:
    """An import is indexed as fast as batches run, by all loops."""
    queue, at_once, most = Queue(), 0, 0

    async def work(jobs: Sequence[Job]) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1

    queue.due = [_job() for _ in range(40)]
    limits = OutboxLimits(batch=4, concurrent=2)
    runner = OutboxRunner(queue, work, limits)  # type: ignore[arg-type]
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(20):
        while len(queue.done_ids) < 40:
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert most == 2


async def test_what_is_stored_while_a_batch_runs_is_gathered_too() -> None:
    """Under load, a batch that was not full is not followed by one of the few that came since."""
    queue, batches = Queue(), []
    runner: OutboxRunner

    async def work(jobs: Sequence[Job]) -> None:
        batches.append(len(jobs))
        if len(batches) == 1:
            for _ in range(5):
                queue.due.append(_job())
                runner.wake()
                await asyncio.sleep(0.01)

    queue.due = [_job()]
    runner = OutboxRunner(queue, work, OutboxLimits(concurrent=2))  # type: ignore[arg-type]
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(20):
        while len(queue.done_ids) < 6:
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert batches == [1, 5]
