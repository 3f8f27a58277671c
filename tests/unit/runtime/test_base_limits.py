"""The gate bounds what runs and what waits, and refuses the rest at once."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime.errors import AppError, Reason
from services.runtime.limits import Gate


async def test_more_than_running_and_waiting_is_refused_with_a_retry_hint() -> None:
    """One runs, one waits, the third hears when to come back."""
    gate = Gate(1, 1, retry_after_s=2.5, name="logins")
    release = asyncio.Event()
    order: list[str] = []

    async def body(name: str) -> None:
        async with gate:
            order.append(name)
            await release.wait()

    first = asyncio.create_task(body("first"))
    second = asyncio.create_task(body("second"))
    while gate.waiting == 0:
        await asyncio.sleep(0)
    with pytest.raises(AppError) as caught:
        async with gate:
            pytest.fail("the gate was full")
    release.set()
    await asyncio.gather(first, second)

    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.OVERLOADED, 2.5)
    assert (order, gate.running, gate.waiting) == (["first", "second"], 0, 0)


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    """Its place in the queue is free again and the slot is not lost."""
    gate = Gate(1, 1)
    async with gate:
        waiter = asyncio.create_task(gate.__aenter__())
        while gate.waiting == 0:
            await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert gate.waiting == 0
    async with gate:
        assert gate.running == 1


def test_a_gate_needs_sane_limits() -> None:
    """A limit of none at all would be a wall."""
    with pytest.raises(ValueError, match="limit"):
        Gate(0, 1)
