"""A model of vLLM behind a backend, for the tests of the engine itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from services.models.domain import (
    Event,
    Finish,
    Generation,
    Message,
    ModelCard,
    Role,
    Sampling,
    State,
    Text,
    ToolSpec,
)
from services.models.engines.backend import EngineBackend
from services.models.engines.settings import VllmModel
from services.runtime.errors import AppError
from services.runtime.process import is_alive, private_folder
from services.runtime.supervisor import WorkerLimits
from tests.support import tiny_model
from tests.support.waiting import until

PARAMETERS = json.dumps(tiny_model.TOOL["function"]["parameters"])  # type: ignore[index]
TOOL = ToolSpec("weather", "Tells the weather.", PARAMETERS)
"""The tool that the tiny model has learnt to call."""
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"enum": [1, 2]}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)
"""Allows another age than the tiny model has learnt."""
CACHE_BYTES = 64 << 20
START_S = 240.0
"""Two processes read all of torch, on a machine that may be busy."""
SOON = WorkerLimits(heartbeat_interval_s=0.2, heartbeat_timeout_s=1.0, start_limit_s=START_S)


def tiny_settings(folder: Path, **more: object) -> VllmModel:
    """Settings that suit a tiny model on a CPU."""
    common: dict[str, object] = {
        "model": str(folder),
        "name": "tiny",
        "dtype": "bfloat16",
        "slots": 4,
        "queue": 2,
        "kv_cache_bytes": CACHE_BYTES,
        "eager": True,
    }
    return VllmModel.model_validate(common | more)


@asynccontextmanager
async def serving(model: VllmModel, sockets: Path, number: int = 0) -> AsyncIterator[EngineBackend]:
    """A running backend for a model, ready or not."""
    backend = EngineBackend(model, private_folder(sockets), number, SOON)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def ready(backend: EngineBackend) -> ModelCard:
    """The card of the backend's model once it is ready."""

    async def card() -> ModelCard | None:
        (found,) = backend.models()
        assert found.state is not State.AWAY or "again" in found.detail, found.detail
        # For an instant a worker that was just killed still counts.
        pid = backend.worker_pid
        return found if found.state is State.READY and pid and is_alive(pid) else None

    found = await until(card, "the engine is ready", START_S)
    assert found is not None
    return found


def asked(text: str, max_tokens: int = 24, **more: object) -> Generation:
    """A request for a reply that is the same each time."""
    sampling = {"temperature": 0.0, "max_tokens": max_tokens}
    for name in ("temperature", "seed", "stop"):
        if name in more:
            sampling[name] = more.pop(name)  # type: ignore[assignment]
    return Generation(
        (Message(Role.USER, text),),
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


async def answer(backend: EngineBackend, request: Generation) -> tuple[str, Finish, list[Event]]:
    """The whole text of a reply, how it ended, and its events."""
    (card,) = backend.models()
    events = [event async for event in backend.generate(request, card)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return "".join(e.text for e in events if isinstance(e, Text)), finish, events


async def failure(backend: EngineBackend, request: Generation) -> AppError:
    """What a request fails with."""
    with pytest.raises(AppError) as raised:
        await answer(backend, request)
    return raised.value


async def idle(backend: EngineBackend) -> None:
    """Wait until the engine itself says that it works on nothing."""

    async def nothing() -> bool:
        load = await backend.load()
        return (load.running, load.waiting) == (0, 0)

    await until(nothing, "the engine stops")


def core_of(backend: EngineBackend) -> int:
    """Process id of a backend's engine core: the child of its worker that holds the model."""
    assert backend.worker_pid is not None
    children = psutil.Process(backend.worker_pid).children(recursive=True)
    return max(children, key=lambda child: child.memory_info().rss).pid
