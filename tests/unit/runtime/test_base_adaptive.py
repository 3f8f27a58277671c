"""The adaptive gate: its bound follows how long the work takes, and hopeless waits are refused."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime.adaptive import AdaptiveGate
from services.runtime.aimd import DECREASE
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason

IN_TIME_S = 0.1


def gate_of(clock: FakeClock, *, least: int = 1, first: int = 4, most: int = 8) -> AdaptiveGate:
    return AdaptiveGate(least=least, first=first, most=most, name="turns", clock=clock)


async def work(gate: AdaptiveGate, clock: FakeClock, took_s: float, times: int = 1) -> None:
    """So many bodies after each other, with all other places taken meanwhile."""
    for _ in range(times):
        others = [gate.place(IN_TIME_S) for _ in range(gate.limit - 1)]
        for other in others:
            await other.__aenter__()
        async with gate.place(IN_TIME_S):
            clock.advance(took_s)
        for other in others:
            # A body that fails tells nothing of time.
            await other.__aexit__(RuntimeError, RuntimeError(), None)


async def test_late_work_lowers_the_bound_to_its_least_and_timely_work_raises_it_to_its_most() -> (
    None
):
    clock = FakeClock()
    gate = gate_of(clock)
    await work(gate, clock, took_s=2 * IN_TIME_S, times=20)
    assert gate.limit == 1
    await work(gate, clock, took_s=IN_TIME_S / 2, times=100)
    assert gate.limit == 8


async def test_one_late_burst_lowers_the_bound_once() -> None:
    """What began before the cut was late because of the bound that was."""
    clock = FakeClock()
    gate = gate_of(clock, first=5)
    places = [gate.place(IN_TIME_S) for _ in range(5)]
    for place in places:
        await place.__aenter__()
    clock.advance(2 * IN_TIME_S)
    for place in places:
        await place.__aexit__(None, None, None)
    assert gate.limit == int(5 * DECREASE)


async def test_a_bound_that_nobody_reaches_does_not_grow() -> None:
    clock = FakeClock()
    gate = gate_of(clock)
    for _ in range(100):
        async with gate.place(IN_TIME_S):
            clock.advance(IN_TIME_S / 2)
    assert gate.limit == 4


async def test_who_would_wait_too_long_is_refused_at_once_and_told_when_to_come_again() -> None:
    clock = FakeClock()
    gate = gate_of(clock, first=1, most=1)
    for _ in range(100):
        async with gate.place(60.0):
            clock.advance(2.0)
    gate.require(0.0)
    running = gate.place(60.0)
    await running.__aenter__()
    gate.require(gate.expected_wait_s)
    with pytest.raises(AppError) as refused:
        gate.require(gate.expected_wait_s / 2)
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.retry_after_s == gate.expected_wait_s
    assert refused.value.metadata == {"queue": "turns"}
    await running.__aexit__(None, None, None)


async def test_places_are_given_in_the_order_of_coming_and_a_cancelled_waiter_leaves_no_trace() -> (
    None
):
    gate = gate_of(FakeClock(), first=1)
    order: list[str] = []

    async def body(name: str) -> None:
        async with gate.place(IN_TIME_S):
            order.append(name)
            await asyncio.sleep(0)

    async with gate.place(IN_TIME_S):
        tasks = [asyncio.create_task(body(name)) for name in "abc"]
        while gate.waiting < 3:
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        assert gate.waiting == 2
    await asyncio.gather(tasks[0], tasks[2])
    assert (order, gate.running, gate.waiting) == (["a", "c"], 0, 0)


async def test_a_waiter_cancelled_just_before_a_place_is_free_passes_it_on() -> None:
    gate = gate_of(FakeClock(), first=1)
    holder = gate.place(IN_TIME_S)
    await holder.__aenter__()
    places = [gate.place(IN_TIME_S) for _ in range(2)]
    waiters = [asyncio.create_task(place.__aenter__()) for place in places]
    while gate.waiting < 2:
        await asyncio.sleep(0)
    waiters[0].cancel()
    await holder.__aexit__(None, None, None)
    ends = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert (ends[1], gate.running, gate.waiting) == (None, 1, 0)


async def test_a_place_that_comes_together_with_a_cancellation_is_not_lost() -> None:
    gate = gate_of(FakeClock(), first=1)
    holder = gate.place(IN_TIME_S)
    await holder.__aenter__()
    waiter = asyncio.create_task(gate.place(IN_TIME_S).__aenter__())
    while not gate.waiting:
        await asyncio.sleep(0)
    await holder.__aexit__(None, None, None)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert gate.running == 0


def test_a_gate_needs_bounds_in_order() -> None:
    with pytest.raises(ValueError, match="least"):
        gate_of(FakeClock(), least=5)
