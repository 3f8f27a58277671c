"""The first failure of several things at once ends the others."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime.concurrently import all_of
from services.runtime.errors import AppError, Reason


async def test_results_come_in_order() -> None:
    async def later(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await all_of(later(turns) for turns in (3, 1, 2)) == [3, 1, 2]


async def test_one_failure_is_raised_as_it_is_and_leaves_nothing_running() -> None:
    ended = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise AppError(Reason.OVERLOADED, "full")

    with pytest.raises(AppError) as raised:
        await all_of([waits(), fails()])
    assert raised.value.reason is Reason.OVERLOADED
    assert ended.is_set()
