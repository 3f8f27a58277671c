"""How a turn starts: its first frame, its place among those that recall, what it asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.routing.v1 import chat_pb2
from tests.support.routing_frames import (
    EXTRACTIVE,
    collect,
    kinds,
    mesh_of,
    reason_of,
    shown,
)
from tests.support.routing_mesh import FakeMemory, FakeModels, ask, model, routing_mesh, says

QUOTES = says("extractive", "Hm.")


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


async def _read_rest(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_the_first_frame_does_not_wait_for_memory_and_a_slow_memory_is_told_of(
    tmp_path: Path, memory: FakeMemory
) -> None:
    memory.begin_gate = asyncio.Event()
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=QUOTES)
    async with running as mesh:
        call = mesh.chat(ask())
        frames = [await call.read(), await call.read()]
        memory.begin_gate.set()
        await _read_rest(call)
    assert kinds(frames) == ["accepted", "progress"]
    assert frames[1].progress.stage == chat_pb2.Progress.STAGE_RECALLING


async def test_a_replay_that_a_replica_cannot_know_of_says_so_once_memory_has(
    tmp_path: Path, memory: FakeMemory, memory_in_time: None
) -> None:
    """The turn was finished by another process: a second accepted frame tells it."""
    models = FakeModels([EXTRACTIVE], {"extractive": QUOTES})
    async with routing_mesh(tmp_path / "one", memory, models) as mesh:
        await collect(mesh.chat(ask()))
    async with routing_mesh(tmp_path / "two", memory, models) as mesh:
        again = await collect(mesh.chat(ask()))
    assert kinds(again) == ["accepted", "accepted", "text", "final"]
    assert [frame.accepted.replayed for frame in again[:2]] == [False, True]
    assert shown(again) == "Hm."
    assert len(models.requests) == 1


async def test_a_turn_that_would_wait_longer_than_its_tier_is_refused_before_memory_is_asked(
    tmp_path: Path, memory: FakeMemory
) -> None:
    """And the instant tier, which has less time, sooner than a slower one."""
    models = FakeModels([EXTRACTIVE], {"extractive": QUOTES})
    async with routing_mesh(tmp_path, memory, models, min_starting_turns=1) as mesh:
        gate = mesh.parts.starting
        gate._mean_s = 2.0
        places = [gate.place(1.0) for _ in range(gate.limit)]
        for place in places:
            await place.__aenter__()
        wait_s = gate.expected_wait_s
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await collect(mesh.chat(ask(tier=chat_pb2.TIER_INSTANT)))
        before = len(memory.recalls)
        patient = mesh.chat(ask(request_id="r2", tier=chat_pb2.TIER_STANDARD))
        waiting = [await patient.read(), await patient.read()]
        for place in places:
            await place.__aexit__(None, None, None)
        await _read_rest(patient)
    assert wait_s == 1.0
    assert before == 0
    assert reason_of(refused.value) == ("OVERLOADED", True)
    assert kinds(waiting) == ["accepted", "progress"]
    assert waiting[1].progress.stage == chat_pb2.Progress.STAGE_QUEUED
    assert memory.reply("r2") is not None


async def test_what_no_model_reads_is_not_asked_for(
    tmp_path: Path, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier messages go into a prompt; where all models quote memories there is none."""
    asked: list[int] = []
    begin = FakeMemory.BeginTurn

    async def noted(self: FakeMemory, request: object, context: object) -> object:
        asked.append(request.recent_limit)  # type: ignore[attr-defined]
        return await begin(self, request, context)

    monkeypatch.setattr(FakeMemory, "BeginTurn", noted)
    for name, models in (("quotes", [EXTRACTIVE]), ("writes", [EXTRACTIVE, model("llm")])):
        fake = FakeModels(models, {"extractive": QUOTES, "llm": says("llm", "Hm.")})
        async with routing_mesh(tmp_path / name, memory, fake) as mesh:
            await collect(mesh.chat(ask(request_id=f"{name}-1")))
            await collect(mesh.chat(ask(request_id=f"{name}-2")))
    first_quote, second_quote, _, written = asked
    assert first_quote > 0, "nothing is known of the models yet"
    assert second_quote == 0
    assert written > 0
