"""How a reply ends and what is stored of it, also when memory is late or away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.memory.v1 import conversation_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2, routing_pb2_grpc
from services.runtime.errors import AppError, Reason
from services.runtime.metrics import REGISTRY
from tests.support.routing_frames import (
    EXTRACTIVE,
    NOT_STORED,
    STORED,
    UNKNOWN,
    collect,
    mesh_of,
    reason_of,
    shown,
)
from tests.support.routing_mesh import (
    FakeMemory,
    ask,
    hangs,
    says,
    waits_for,
)


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


async def test_a_cancelled_call_stops_the_model_and_stores_the_text_so_far(
    tmp_path: Path, memory: FakeMemory
) -> None:
    models, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=hangs("so far"))
    async with running as mesh:
        call = mesh.chat(ask())
        async for frame in call:
            if frame.WhichOneof("frame") == "text":
                break
        call.cancel()
        await asyncio.wait_for(models.stopped.wait(), 30)
        await asyncio.wait_for(memory.completed.wait(), 30)
    reply = memory.reply("r1")
    assert reply is not None
    assert reply.text == "so far"
    assert reply.finish_reason == conversation_pb2.FINISH_REASON_CANCELLED


def _generations(code: str) -> float:
    """How many calls of models ended with `code`, as routing counted them."""
    labels = {"method": "/echomesh.models.v1.ModelService/Generate", "code": code}
    return REGISTRY.get_sample_value("echomesh_rpc_client_seconds_count", labels) or 0.0


async def test_a_generation_that_ended_well_was_not_cancelled(
    tmp_path: Path, memory: FakeMemory
) -> None:
    well, cancelled = _generations("OK"), _generations("CANCELLED")
    script = says("extractive", "All of it.")
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=script)
    async with running as mesh:
        await collect(mesh.chat(ask()))
    assert _generations("OK") == well + 1
    assert _generations("CANCELLED") == cancelled


async def test_a_break_after_the_end_of_a_reply_takes_nothing_from_it(
    tmp_path: Path, memory: FakeMemory
) -> None:
    async def script(request: models_pb2.GenerateRequest) -> AsyncIterator[Any]:
        async for event in says("extractive", "All of it.")(request):
            yield event
        raise AppError(Reason.MODEL_UNAVAILABLE, "broken")

    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=script)
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert shown(frames) == "All of it."
    assert not frames[-1].final.degraded


async def test_a_detached_turn_goes_on_when_its_client_has_gone(
    tmp_path: Path, memory: FakeMemory
) -> None:
    gate = asyncio.Event()
    script = waits_for(gate, "extractive", "so far", " and the rest")
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=script)
    async with running as mesh:
        call = mesh.chat(ask(detach=True))
        async for frame in call:
            if frame.WhichOneof("frame") == "text":
                break
        call.cancel()
        # One connection keeps its order: once this is answered, the cancel has arrived.
        stub = routing_pb2_grpc.MeshServiceStub(mesh.channel)
        await stub.GetEndpoints(routing_pb2.GetEndpointsRequest())
        gate.set()
        await asyncio.wait_for(memory.completed.wait(), 30)
    reply = memory.reply("r1")
    assert reply is not None
    assert reply.text == "so far and the rest"
    assert reply.finish_reason == conversation_pb2.FINISH_REASON_STOP


async def test_the_deadline_ends_a_reply_with_a_final_frame(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=hangs("so far"))
    frames: list[chat_pb2.ChatResponse] = []
    async with running as mesh:
        # A busy machine may hand out what was sent in time too late.
        for attempt in range(5):
            with suppress(grpc.aio.AioRpcError):
                frames = await collect(mesh.chat(ask(request_id=f"r{attempt}"), timeout=2.0))
                break
    final = frames[-1].final
    assert shown(frames) == "so far"
    assert final.finish_reason == conversation_pb2.FINISH_REASON_DEADLINE
    assert final.reply_stored in (STORED, UNKNOWN)


async def test_a_private_message_is_answered_and_leaves_nothing(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Sh."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask(store=False)))
    final = frames[-1].final
    assert (shown(frames), memory.turns) == ("Sh.", {})
    assert (final.message_stored, final.reply_stored) == (NOT_STORED, NOT_STORED)


async def test_memory_that_is_away_is_done_without_and_said(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Alone."))
    async with running as mesh:
        await mesh.stop["memory"]()
        frames = await collect(mesh.chat(ask()))
    final = frames[-1].final
    assert shown(frames) == "Alone."
    assert (final.message_stored, final.reply_stored) == (NOT_STORED, NOT_STORED)
    assert list(final.degraded) == ["memory"]


async def test_a_begin_without_an_answer_is_unknown_and_never_called_stored(
    tmp_path: Path, memory: FakeMemory
) -> None:
    memory.begin_gate = asyncio.Event()
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Alone."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask(tier=chat_pb2.TIER_INSTANT), timeout=30.0))
        memory.begin_gate.set()
    final = frames[-1].final
    assert (final.message_stored, final.reply_stored) == (UNKNOWN, NOT_STORED)
    assert "memory" in final.degraded


async def test_a_late_begin_still_stores_the_reply(tmp_path: Path, memory: FakeMemory) -> None:
    memory.begin_gate = asyncio.Event()

    async def script(_: Any) -> AsyncIterator[Any]:
        assert memory.begin_gate is not None
        memory.begin_gate.set()
        yield models_pb2.GenerateResponse(text="Late.")
        async for event in says("extractive", "")(_):
            yield event

    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=script)
    async with running as mesh:
        frames = await collect(mesh.chat(ask(tier=chat_pb2.TIER_INSTANT)))
    assert (frames[-1].final.message_stored, frames[-1].final.reply_stored) == (STORED, STORED)


async def test_recall_that_misses_its_share_is_left_out_and_named(
    tmp_path: Path, memory: FakeMemory
) -> None:
    memory.recall_gate = asyncio.Event()
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask(tier=chat_pb2.TIER_INSTANT)))
        memory.recall_gate.set()
    assert list(frames[-1].final.degraded) == ["memory"]
    assert frames[-1].final.reply_stored == STORED


async def test_what_recall_lacked_is_passed_on(tmp_path: Path, memory: FakeMemory) -> None:
    memory.recall_degraded = ("embeddings",)
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert list(frames[-1].final.degraded) == ["embeddings"]


async def test_a_refused_begin_is_the_callers_error(tmp_path: Path, memory: FakeMemory) -> None:
    memory.begin_error = AppError(Reason.NOT_FOUND, "no such message", metadata={"type": "message"})
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await collect(mesh.chat(ask(parent_message_id="gone")))
    assert reason_of(refused.value)[0] == "NOT_FOUND"
