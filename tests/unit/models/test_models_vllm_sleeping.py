"""A model that wakes up must answer as it did before it slept. vLLM's own part is a double."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

import pytest

from services.models.engines.engine import SleepLevel
from services.models.engines.vllm import sleeping
from services.models.engines.vllm.sleeping import Sleeper
from services.runtime.errors import AppError, Reason
from tests.support.waiting import until


class SleepingDouble:
    """What of `AsyncLLM` is about sleeping, with what it was told; and the probe of it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answer: list[float] = [4, 8, 15]
        self.silent = False
        self.slow = False
        self.fails = False
        self.gone: list[str] = []

    async def sleep(self, level: int = 1) -> None:
        self.told.append(f"sleep {level}")
        await self.take_long()

    async def wake_up(self, tags: list[str] | None = None) -> None:
        self.told.append(f"wake {tags}")
        await self.take_long()

    async def take_long(self) -> None:
        if self.fails:
            raise RuntimeError("out of memory")
        if self.slow:
            await asyncio.Event().wait()

    async def collective_rpc(self, method: str) -> None:
        self.told.append(method)

    async def probe(self) -> list[float]:
        self.told.append("probe")
        if self.silent:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def double() -> SleepingDouble:
    return SleepingDouble()


@pytest.fixture
def sleeper(double: SleepingDouble) -> Sleeper:
    return Sleeper("vllm/tiny", double, double.probe, double.gone.append)


async def test_a_model_is_probed_before_it_sleeps_and_after_it_wakes(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    with pytest.raises(AppError) as asleep:
        sleeper.require_awake()
    assert asleep.value.reason is Reason.MODEL_UNAVAILABLE
    assert asleep.value.retry_after_s
    await sleeper.wake()
    sleeper.require_awake()
    assert double.told == ["probe", "sleep 1", "wake None", "probe"]
    assert double.gone == []


async def test_weights_that_were_let_go_are_read_before_the_cache_is_made(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    await sleeper.sleep(SleepLevel.DROP_WEIGHTS)
    await sleeper.wake()
    assert double.told[1:-1] == [
        "sleep 2",
        "wake ['weights']",
        "reload_weights",
        "wake ['kv_cache']",
    ]


async def test_a_model_that_woke_up_changed_is_not_asked_anything(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    await sleeper.sleep(SleepLevel.DROP_WEIGHTS)
    double.answer = [0, 0, 0]
    with pytest.raises(AppError) as changed:
        await sleeper.wake()
    assert changed.value.reason is Reason.MODEL_BAD_RESPONSE
    assert double.gone == ["it could not wake up"]
    with pytest.raises(AppError):
        sleeper.require_awake()


async def test_sleeping_and_waking_twice_is_as_good_as_once(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    await sleeper.wake()
    assert double.told == []
    await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    await sleeper.sleep(SleepLevel.DROP_WEIGHTS)
    assert double.told == ["probe", "sleep 1"]


async def test_a_model_that_does_not_answer_after_waking_has_not_woken(
    sleeper: Sleeper, double: SleepingDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    monkeypatch.setattr(sleeping, "PROBE_LIMIT_S", 0.0)
    double.silent = True
    with pytest.raises(AppError) as silent:
        await sleeper.wake()
    assert silent.value.reason is Reason.MODEL_BAD_RESPONSE
    assert double.gone == ["it could not wake up"]


async def test_a_model_too_busy_to_be_asked_before_it_sleeps_stays_awake(
    sleeper: Sleeper, double: SleepingDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleeping, "PROBE_LIMIT_S", 0.0)
    double.silent = True
    with pytest.raises(AppError) as busy:
        await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    assert busy.value.reason is Reason.OVERLOADED
    assert busy.value.retry_after_s
    sleeper.require_awake()
    assert (double.told, double.gone) == (["probe"], [])


async def cancelled(work: Coroutine[Any, Any, None], double: SleepingDouble, at: str) -> None:
    """Do something and cancel it once the double was told that."""
    task = asyncio.create_task(work)

    async def told() -> bool:
        assert not task.done()
        return double.told[-1:] == [at]

    await until(told, at)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_sleep_that_is_cancelled_before_it_began_leaves_the_model_awake(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    double.silent = True
    await cancelled(sleeper.sleep(SleepLevel.KEEP_WEIGHTS), double, "probe")
    sleeper.require_awake()
    assert double.gone == []


async def test_a_sleep_that_is_cancelled_half_way_costs_the_engine(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    """Nobody knows how it stands then; it would refuse everything while it is listed as ready."""
    double.slow = True
    await cancelled(sleeper.sleep(SleepLevel.KEEP_WEIGHTS), double, "sleep 1")
    assert double.gone == ["it could not go to sleep"]


async def test_a_waking_that_is_cancelled_half_way_costs_the_engine(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    double.slow = True
    await cancelled(sleeper.wake(), double, "wake None")
    assert double.gone == ["it could not wake up"]


async def test_an_engine_that_fails_to_sleep_is_given_up(
    sleeper: Sleeper, double: SleepingDouble
) -> None:
    double.fails = True
    with pytest.raises(AppError) as failed:
        await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    assert failed.value.reason is Reason.MODEL_BAD_RESPONSE
    assert double.gone == ["it could not go to sleep"]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ([0.6, 0.8], [0.61, 0.792], True),
        ([0.6, 0.8], [0.8, 0.6], False),
        ([0.6, 0.8], [math.nan, math.nan], False),
        ([4, 8, 15], [4, 8, 16], False),
        ([4, 8, 15], [4, 8], False),
    ],
)
async def test_vectors_may_differ_by_what_rounding_does_and_tokens_not_at_all(
    sleeper: Sleeper, double: SleepingDouble, before: list[float], after: list[float], same: bool
) -> None:
    double.answer = before
    await sleeper.sleep(SleepLevel.KEEP_WEIGHTS)
    double.answer = after
    with nullcontext() if same else pytest.raises(AppError):
        await sleeper.wake()
