"""What ChatService promises, over real gRPC with scripted memory and models behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.memory.v1 import conversation_pb2
from echomesh.routing.v1 import chat_pb2
from tests.support.routing_frames import (
    EXTRACTIVE,
    STORED,
    collect,
    collect_rest,
    hit,
    kinds,
    mesh_of,
    reason_of,
    shown,
)
from tests.support.routing_mesh import (
    FakeMemory,
    ask,
    breaks,
    hangs,
    model,
    says,
)


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


async def test_a_message_is_answered_from_memory_and_both_sides_are_stored(
    tmp_path: Path, memory: FakeMemory
) -> None:
    memory.hits = [hit(1, "I live in Bristol now")]
    quoted = (memory.hits[0].memory.id,)
    models, running = mesh_of(
        tmp_path,
        memory,
        EXTRACTIVE,
        extractive=says("extractive", "In ", "Bristol.", quoted=quoted),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask(speaker="Maya")))
    assert kinds(frames)[0] == "accepted"
    assert not frames[0].accepted.replayed
    assert frames[0].accepted.assistant_name == "Echo"
    final = frames[-1].final
    assert shown(frames) == "In Bristol."
    assert (final.message_stored, final.reply_stored) == (STORED, STORED)
    assert (final.model, final.tier) == ("extractive", chat_pb2.TIER_FAST)
    assert list(final.used_memory_ids) == list(quoted)
    assert final.confidence == 0.75
    assert list(final.degraded) == []
    assert final.finish_reason == conversation_pb2.FINISH_REASON_STOP
    assert 0 < final.first_text.ToMicroseconds() <= final.total.ToMicroseconds()
    assert final.usage.completion_tokens == 3
    decision = next(f.decision for f in frames if f.WhichOneof("frame") == "decision")
    assert decision.query_type == chat_pb2.QUERY_TYPE_RECALL
    reply = memory.reply("r1")
    assert reply is not None
    assert (reply.text, reply.speaker, reply.model) == ("In Bristol.", "Echo", "extractive")
    assert models.requests[0].evidence[0].text == "I live in Bristol now"
    assert models.requests[0].user_name == "Maya"


async def test_a_language_model_gets_the_persona_first_and_the_memories(
    tmp_path: Path, memory: FakeMemory
) -> None:
    memory.hits = [hit(1, "I live in Bristol now"), hit(2, "I live in Leeds")]
    models, running = mesh_of(
        tmp_path, memory, EXTRACTIVE, model("llm"), llm=says("llm", "Bristol!")
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    system = models.requests[0].messages[0].content
    assert system.startswith("You are Echo")
    assert "I live in Bristol now" in system
    assert models.requests[0].messages[-1].content == "Where do I live?"
    assert not models.requests[0].evidence
    assert frames[-1].final.model == "llm"
    assert len(frames[-1].final.used_memory_ids) == 2
    assert not frames[-1].final.HasField("confidence")


async def test_the_question_itself_is_never_its_own_evidence(
    tmp_path: Path, memory: FakeMemory
) -> None:
    memory.hits = [
        hit(1, "Where do I live?", conversation_id="c1", seq=1),
        hit(2, "I live in Bristol", conversation_id="c0", seq=9),
        hit(3, "said later", conversation_id="c1", seq=4),
    ]
    models, running = mesh_of(
        tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Bristol.")
    )
    async with running as mesh:
        await collect(mesh.chat(ask()))
    assert [item.text for item in models.requests[0].evidence] == ["I live in Bristol"]


async def test_the_same_request_again_replays_the_reply_and_another_body_is_refused(
    tmp_path: Path, memory: FakeMemory, memory_in_time: None
) -> None:
    models, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        first = await collect(mesh.chat(ask()))
        again = await collect(mesh.chat(ask()))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await collect(mesh.chat(ask("something else")))
    assert kinds(again) == ["accepted", "text", "final"]
    assert again[0].accepted.replayed
    assert again[-1].final.reply_id == first[-1].final.reply_id
    assert (again[-1].final.message_stored, again[-1].final.reply_stored) == (STORED, STORED)
    assert len(models.requests) == 1
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(refused.value)[0] == "REQUEST_ID_REUSED"


async def test_a_replay_needs_no_models(tmp_path: Path, memory: FakeMemory) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        await collect(mesh.chat(ask()))
        await mesh.stop["models"]()
        again = await collect(mesh.chat(ask()))
    assert shown(again) == "Hm."


async def test_a_turn_that_was_begun_before_is_run_again_with_a_restart(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=breaks())
    async with running as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await collect(mesh.chat(ask()))
    assert reason_of(failed.value)[0] == "MODEL_UNAVAILABLE"
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Now."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert "restart" in kinds(frames)
    final = frames[-1].final
    assert (shown(frames), final.reply_stored) == ("Now.", STORED), final


async def test_the_newest_of_two_callers_runs_the_turn(tmp_path: Path, memory: FakeMemory) -> None:
    scripts = iter([hangs("old"), says("extractive", "new")])

    def either(request: Any) -> AsyncIterator[Any]:
        return next(scripts)(request)

    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=either)
    async with running as mesh:
        older = mesh.chat(ask())
        async for frame in older:
            if frame.WhichOneof("frame") == "text":
                break
        newer = await collect(mesh.chat(ask()))
        with pytest.raises(grpc.aio.AioRpcError) as superseded:
            await collect_rest(older)
    assert shown(newer) == "new"
    assert reason_of(superseded.value)[0] == "TURN_SUPERSEDED"
    assert memory.reply("r1").text == "new"  # type: ignore[union-attr]


async def test_without_recall_nothing_is_recalled(tmp_path: Path, memory: FakeMemory) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask(recall=False)))
    assert memory.recalls == []
    assert list(frames[-1].final.degraded) == []


async def test_small_talk_recalls_by_keyword(tmp_path: Path, memory: FakeMemory) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hi."))
    async with running as mesh:
        await collect(mesh.chat(ask("Hi there")))
        await collect(mesh.chat(ask("Where do I live?", "r2")))
    assert [request.keyword_only for request in memory.recalls] == [True, False]
