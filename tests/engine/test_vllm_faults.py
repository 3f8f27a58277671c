"""What becomes of vLLM's worker and engine core when one of them dies or freezes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from services.models.domain import Event, State
from services.models.engines.backend import EngineBackend
from services.models.engines.settings import VllmModel
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.process import wait_until_gone
from tests.support.engines import (
    START_S,
    answer,
    asked,
    core_of,
    failure,
    idle,
    ready,
    serving,
    tiny_settings,
)
from tests.support.tiny_model import COUNT, COUNTED, ON_AND_ON
from tests.support.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineBackend]:
    """An engine that the tests kill: each waits until it is there again."""
    async with serving(tiny_settings(tiny), tmp_path_factory.mktemp("e")) as made:
        yield made


async def end_of(events: AsyncGenerator[Event, None]) -> AppError:
    """What a stream breaks off with."""
    with pytest.raises(AppError) as raised:
        async for _ in events:
            pass
    return raised.value


@pytest.mark.parametrize("whom", ["worker", "core"])
@pytest.mark.parametrize("signum", ["SIGKILL", "SIGSTOP"])
async def test_an_engine_that_dies_or_freezes_ends_its_streams_and_comes_back(
    backend: EngineBackend, whom: str, signum: str
) -> None:
    """The reader gets a retryable error, nothing is left behind, and a new worker answers."""
    card = await ready(backend)
    worker, core = backend.worker_pid, core_of(backend)
    assert worker is not None
    text, _, _ = await answer(backend, asked(COUNT))
    assert text == COUNTED
    with deadline_scope(PATIENCE_S):
        async with aclosing(backend.generate(asked(ON_AND_ON, 950), card)) as events:
            await anext(events)
            os.kill(worker if whom == "worker" else core, getattr(signal, signum))
            error = await end_of(events)
    assert error.reason is Reason.MODEL_UNAVAILABLE
    assert error.retry_after_s
    assert await wait_until_gone(worker, timeout_s=60)
    assert await wait_until_gone(core, timeout_s=60)


@pytest.mark.parametrize("signum", ["SIGKILL", "SIGSTOP"])
async def test_an_engine_core_that_dies_or_freezes_while_nobody_asks_is_replaced(
    backend: EngineBackend, signum: str
) -> None:
    await ready(backend)
    worker, core = backend.worker_pid, core_of(backend)
    assert worker is not None
    os.kill(core, getattr(signal, signum))
    assert await wait_until_gone(worker, timeout_s=60)
    await ready(backend)
    text, _, _ = await answer(backend, asked(COUNT))
    assert text == COUNTED
    await idle(backend)


async def why_not(model: VllmModel, sockets: Path) -> str:
    """Why a model cannot be served, as the list of models says it."""
    async with serving(model, sockets) as backend:

        async def told() -> str:
            (card,) = backend.models()
            known = card.state is State.AWAY and card.detail != "its engine is started again"
            return card.detail if known else ""

        detail = await until(told, "the reason is told", START_S)
        error = await failure(backend, asked("Hello."))
        assert error.reason is Reason.MODEL_UNAVAILABLE
        return detail


async def test_a_folder_that_is_broken_is_named_in_the_list_of_models(
    tiny: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    detail = await why_not(tiny_settings(broken), tmp_path / "e")
    assert detail == f"{weights} is cut off: fetch it again"


async def test_a_model_of_a_kind_that_vllm_does_not_know_is_named(
    tiny: Path, tmp_path: Path
) -> None:
    strange = shutil.copytree(tiny, tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    config["architectures"] = ["NoSuchModel"]
    (strange / "config.json").write_text(json.dumps(config))
    detail = await why_not(tiny_settings(strange), tmp_path / "e")
    assert detail.startswith("vllm/tiny: ")
    assert "NoSuchModel" in detail
    assert "\n" not in detail


async def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tiny: Path, tmp_path: Path
) -> None:
    huge = tiny_settings(tiny, kv_cache_bytes=1 << 50)
    detail = await why_not(huge, tmp_path / "e")
    assert "needs at least" in detail
