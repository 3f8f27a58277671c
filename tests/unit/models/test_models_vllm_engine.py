"""Our engine around vLLM where vLLM is busy, asleep or strange. vLLM itself is a double."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from services.models.domain import Generation, Message, Role, Text
from services.models.engines.engine import SleepLevel
from services.models.engines.settings import VllmModel
from services.models.engines.vllm.pulse import Pulse
from services.runtime.errors import AppError, Reason
from tests.support import vllm_double
from tests.support.vllm_double import BROKEN, LlmDouble
from tests.support.waiting import PATIENCE_S, until

HELLO = Generation((Message(Role.USER, "Hello there"),))
_MODULE = "services.models.engines.vllm.engine"


class World:
    """An engine around a double, and why it was given up."""

    def __init__(self, module: ModuleType, llm: LlmDouble, **settings: Any) -> None:
        self.llm = llm
        self.gone: list[str] = []
        model = VllmModel(model="/models/tiny", **settings)
        threads = ThreadPoolExecutor(1)
        self.engine = module.VllmEngine(model, llm, Pulse(), threads, self.gone.append, 135)

    async def reply(self) -> str:
        """What the model says."""
        events = [event async for event in self.engine.generate(HELLO, lambda: None)]
        return "".join(event.text for event in events if isinstance(event, Text))

    async def vectors(self, *texts: str) -> list[Any]:
        """Vectors of texts."""
        return list(await self.engine.embed(texts, lambda: None))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The engine's module, imported with the double in place of vLLM."""
    vllm_double.install(monkeypatch)
    monkeypatch.delitem(sys.modules, _MODULE, raising=False)
    yield importlib.import_module(_MODULE)
    sys.modules.pop(_MODULE)


@asynccontextmanager
async def running(module: ModuleType, **settings: Any) -> AsyncIterator[World]:
    """A loaded engine."""
    world = World(module, LlmDouble(pooling=bool(settings.get("embeds"))), **settings)
    await world.engine.warm_up()
    yield world
    world.llm.words.free.set()
    await world.engine.close()


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize("level", list(SleepLevel))
async def test_models_of_text_and_of_vectors_sleep_and_wake(
    module: ModuleType, embeds: bool, level: SleepLevel
) -> None:
    async with running(module, sleep=True, embeds=embeds) as world:
        await world.engine.sleep(level)
        await world.engine.wake()
        assert world.llm.told[0] == f"sleep {level.value}"
        assert world.gone == []
        assert await (world.vectors("a b") if embeds else world.reply())


@pytest.mark.parametrize("embeds", [False, True])
async def test_a_model_that_woke_up_changed_is_given_up(module: ModuleType, embeds: bool) -> None:
    async with running(module, sleep=True, embeds=embeds) as world:
        await world.engine.sleep(SleepLevel.DROP_WEIGHTS)
        world.llm.changed = 1
        with pytest.raises(AppError) as changed:
            await world.engine.wake()
        assert changed.value.reason is Reason.MODEL_BAD_RESPONSE
        assert world.gone == ["it could not wake up"]


async def test_an_engine_that_is_too_busy_to_sleep_goes_on(module: ModuleType) -> None:
    async with running(module, sleep=True) as world:
        world.llm.full = True
        with pytest.raises(AppError) as busy:
            await world.engine.sleep(SleepLevel.KEEP_WEIGHTS)
        assert busy.value.reason is Reason.OVERLOADED
        assert busy.value.retry_after_s
        world.llm.full = False
        assert await world.reply() == "yes"
        assert (world.gone, world.llm.told) == ([], [])


@pytest.mark.parametrize(("scheduling", "first"), [("priority", -1001), ("fcfs", 0)])
@pytest.mark.parametrize("embeds", [False, True])
async def test_the_question_before_sleeping_goes_before_all_requests(
    module: ModuleType, scheduling: str, first: int, embeds: bool
) -> None:
    """Where priorities count: requests have theirs from -1,000."""
    async with running(module, sleep=True, scheduling=scheduling, embeds=embeds) as world:
        await world.engine.sleep(SleepLevel.KEEP_WEIGHTS)
        assert world.llm.priorities[-1] == first


@pytest.mark.parametrize("embeds", [False, True])
async def test_a_request_that_is_tokenised_while_the_model_falls_asleep_does_not_reach_it(
    module: ModuleType, embeds: bool
) -> None:
    """It would wait in an engine that makes no step, which counts as stuck."""
    async with running(module, sleep=True, embeds=embeds) as world:
        llm, words = world.llm, world.llm.words
        llm.free.clear()
        sleeping = asyncio.create_task(world.engine.sleep(SleepLevel.KEEP_WEIGHTS))
        await until(lambda: is_true(llm.running == 1), "the question before sleeping")
        words.free.clear()
        begun = words.begun
        late = asyncio.create_task(world.vectors("a") if embeds else world.reply())
        await until(lambda: is_true(words.begun > begun), "the request is tokenised")
        llm.free.set()
        await sleeping
        asked = len(llm.priorities)
        words.free.set()
        with pytest.raises(AppError) as asleep:
            await late
        assert asleep.value.reason is Reason.MODEL_UNAVAILABLE
        assert len(llm.priorities) == asked


async def is_true(condition: bool) -> bool:
    return condition


async def test_more_texts_than_places_become_vectors_so_many_at_once_as_there_are_slots(
    module: ModuleType,
) -> None:
    async with running(module, embeds=True, slots=3, queue=1) as world:
        texts = ["a " * n for n in range(1, 41)]
        both = await asyncio.gather(world.vectors(*texts), world.vectors(*texts))
        for made in both:
            assert [vector.tokens for vector in made] == list(range(1, 41))
            third = np.frombuffer(made[2].data, "<f4")
            assert third == pytest.approx(np.asarray([3, 1]) / np.sqrt(10))
        assert world.llm.most_running == 3


async def test_the_first_text_that_fails_ends_the_others(module: ModuleType) -> None:
    async with running(module, embeds=True, slots=4) as world:
        world.llm.free.clear()
        with pytest.raises(AppError) as failed:
            async with asyncio.timeout(PATIENCE_S):
                await world.vectors("a", "b b", BROKEN, "c", "d", "e")
        assert failed.value.reason is Reason.MODEL_REFUSED
        assert world.llm.running == 0
        world.llm.free.set()
        assert len(await world.vectors("a")) == 1


async def test_a_text_that_does_not_fit_is_cut_and_said_to_be(module: ModuleType) -> None:
    async with running(module, embeds=True) as world:
        made = await world.vectors("a " * 64, "a " * 65)
    assert [(vector.tokens, vector.truncated) for vector in made] == [(64, False), (64, True)]


async def test_a_loaded_model_says_how_many_parameters_it_has(module: ModuleType) -> None:
    async with running(module) as world:
        assert world.engine.abilities.parameters == 135


async def test_a_core_that_answers_with_any_error_is_given_up(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    monkeypatch.setattr(module, "_LOOKS_A_PING", 1)
    async with running(module) as world:
        world.llm.sign_of_life = RuntimeError("what is this")
        await until(lambda: is_true(bool(world.gone)), "the engine is given up")
        assert world.gone == ["its engine core makes no step"]


async def test_a_core_that_ended_while_it_was_asked_is_said_to_have_ended(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    monkeypatch.setattr(module, "_LOOKS_A_PING", 1)
    async with running(module) as world:

        async def ends() -> bool:
            world.llm.errored = True
            raise vllm_double.EngineDeadError

        monkeypatch.setattr(world.llm, "is_sleeping", ends)
        await until(lambda: is_true(bool(world.gone)), "the engine is given up")
        assert world.gone == ["its engine core ended"]
