"""A model that wakes up must answer as it did before it slept. vLLM's own part is a double."""

from __future__ import annotations

import asyncio

import pytest

from services.models.engines.engine import SleepLevel
from services.models.engines.vllm import sleeping
from services.models.engines.vllm.sleeping import Sleeper
from services.runtime.errors import AppError, Reason


class SleepingDouble:
    """What of `AsyncLLM` is about sleeping, with what it was told; and the probe of it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answer = [4, 8, 15]
        self.silent = False

    async def sleep(self, level: int = 1) -> None:
        self.told.append(f"sleep {level}")

    async def wake_up(self, tags: list[str] | None = None) -> None:
        self.told.append(f"wake {tags}")

    async def collective_rpc(self, method: str) -> None:
        self.told.append(method)

    async def probe(self) -> list[int]:
        self.told.append("probe")
        if self.silent:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def double() -> SleepingDouble:
    return SleepingDouble()


@pytest.fixture
def sleeper(double: SleepingDouble) -> Sleeper:
    return Sleeper("vllm/tiny", double, double.probe)


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
