"""Explain: why a reply is as it is, from any replica, for as long as the reply is kept."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.routing.v1 import routing_pb2, routing_pb2_grpc
from services.runtime.errors import AppError, Reason
from tests.support.routing_frames import EXTRACTIVE, collect, reason_of
from tests.support.routing_mesh import (
    FakeMemory,
    FakeModels,
    RoutingMesh,
    ask,
    breaks,
    model,
    routing_mesh,
    says,
)

HARBOUR = "My car is by the harbour."
TRACES = "https://jaeger.example/ui"


def hit(text: str = HARBOUR) -> memory_pb2.RecallHit:
    memory = memory_pb2.Memory(id=str(uuid.uuid4()), text=text, speaker="alice")
    return memory_pb2.RecallHit(memory=memory, score=0.75)


def models_of() -> FakeModels:
    scripts = {"bad": breaks(), "good": says("good", "By the", " harbour.")}
    return FakeModels([model("bad"), model("good"), EXTRACTIVE], scripts)


async def explain(mesh: RoutingMesh, *, user: str = "alice", **asked: str) -> Any:
    stub = routing_pb2_grpc.RoutingServiceStub(mesh.channel)
    metadata = (("authorization", f"Bearer {user}"),)
    return await stub.Explain(routing_pb2.ExplainRequest(**asked), metadata=metadata, timeout=20)


async def test_a_stored_reply_is_explained_by_a_replica_that_never_saw_it(tmp_path: Path) -> None:
    """Choice, attempts, memories with their texts, timings and the trace, by either message."""
    memory = FakeMemory(hits=[hit()], recall_degraded=("index",))
    async with routing_mesh(tmp_path / "one", memory, models_of()) as first:
        final = (await collect(first.chat(ask("Where is my car?"))))[-1].final
    async with routing_mesh(
        tmp_path / "two", memory, models_of(), traces_url=f"{TRACES}/"
    ) as other:
        by_reply = await explain(other, message_id=final.reply_id)
        by_question = await explain(other, message_id=final.message_id)
        by_request = await explain(other, request_id="r1")
    assert by_reply == by_question == by_request
    assert (by_reply.reply_id, by_reply.message_id) == (final.reply_id, final.message_id)
    assert by_reply.decision.model == "good"
    tried = [(attempt.model, attempt.error_reason) for attempt in by_reply.attempts]
    assert tried == [("bad", "MODEL_UNAVAILABLE"), ("good", "")]
    assert [used.text for used in by_reply.memories] == [HARBOUR]
    assert list(by_reply.degraded) == ["index"]
    assert by_reply.finish_reason == conversation_pb2.FINISH_REASON_STOP
    assert by_reply.usage.completion_tokens == 3
    times = by_reply.timings
    assert times.started.ToNanoseconds() <= times.prepared.ToNanoseconds()
    assert times.prepared.ToNanoseconds() <= times.first_text.ToNanoseconds()
    assert times.first_text.ToNanoseconds() <= times.generated.ToNanoseconds()
    assert by_reply.trace_url == f"{TRACES}/trace/{final.trace_id}"


async def test_what_is_kept_of_an_explanation_holds_nobodys_words(tmp_path: Path) -> None:
    """A forgotten memory is gone from explanations too: its text is looked up when one is asked."""
    memory = FakeMemory(hits=[hit()])
    async with routing_mesh(tmp_path, memory, models_of()) as mesh:
        final = (await collect(mesh.chat(ask("Where is my car?"))))[-1].final
        kept = memory.turns["alice", "r1"]["explanation"]
        memory.hits.clear()
        why = await explain(mesh, message_id=final.reply_id)
    assert kept
    assert b"harbour" not in kept
    assert b"car" not in kept
    assert [used.text for used in why.memories] == [""]


async def test_a_private_reply_is_explained_by_the_replica_that_made_it(tmp_path: Path) -> None:
    async with routing_mesh(tmp_path, FakeMemory(), models_of()) as mesh:
        await collect(mesh.chat(ask(store=False)))
        why = await explain(mesh, request_id="r1")
    assert why.decision.model == "good"
    assert (why.message_id, why.reply_id) == ("", "")


async def test_a_reply_that_memory_missed_is_explained_while_memory_is_away(
    tmp_path: Path,
) -> None:
    away = AppError(Reason.DEPENDENCY_UNAVAILABLE, "memory is away")
    memory = FakeMemory(begin_error=away)
    async with routing_mesh(tmp_path, memory, models_of()) as mesh:
        await collect(mesh.chat(ask()))
        why = await explain(mesh, request_id="r1")
    assert list(why.degraded) == ["memory"]


async def test_nobody_elses_reply_is_explained(tmp_path: Path) -> None:
    async with routing_mesh(tmp_path, FakeMemory(), models_of()) as mesh:
        final = (await collect(mesh.chat(ask())))[-1].final
        for asked in ({"request_id": "r1"}, {"message_id": final.reply_id}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await explain(mesh, user="mallory", **asked)
            assert reason_of(refused.value)[0] == "NOT_FOUND"


@pytest.mark.parametrize("asked", [{}, {"message_id": "not-an-id"}])
async def test_a_question_about_nothing_is_refused(tmp_path: Path, asked: dict[str, str]) -> None:
    async with routing_mesh(tmp_path, FakeMemory(), models_of()) as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await explain(mesh, **asked)
    assert reason_of(refused.value)[0] == "INVALID_REQUEST"
