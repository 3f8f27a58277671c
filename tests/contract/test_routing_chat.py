"""What ChatService promises, over real gRPC with scripted memory and models behind it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2, routing_pb2_grpc
from services.runtime.errors import AppError, Reason
from tests.support.routing_mesh import (
    FakeMemory,
    FakeModels,
    RoutingMesh,
    ask,
    breaks,
    hangs,
    model,
    routing_mesh,
    says,
    waits_for,
)

EXTRACTIVE = model("extractive", generative=False)
STORED, NOT_STORED, UNKNOWN = (
    chat_pb2.STORE_RESULT_STORED,
    chat_pb2.STORE_RESULT_NOT_STORED,
    chat_pb2.STORE_RESULT_UNKNOWN,
)


def hit(number: int, text: str, **changes: Any) -> memory_pb2.RecallHit:
    memory_id = str(uuid.UUID(int=number))
    memory = memory_pb2.Memory(
        id=memory_id, text=text, speaker="Maya", role=conversation_pb2.MESSAGE_ROLE_USER, **changes
    )
    return memory_pb2.RecallHit(memory=memory, score=1.0 / number)


async def collect(call: Any) -> list[chat_pb2.ChatResponse]:
    frames = [frame async for frame in call]
    assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
    return frames


def kinds(frames: list[chat_pb2.ChatResponse]) -> list[str]:
    return [str(frame.WhichOneof("frame")) for frame in frames]


def shown(frames: list[chat_pb2.ChatResponse]) -> str:
    """The reply as a client shows it: a restart voids what came before."""
    text = ""
    for frame in frames:
        kind = frame.WhichOneof("frame")
        text = "" if kind == "restart" else text + frame.text.text
    return text


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """The reason of an error, and whether it says when to try again."""
    blob = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    found = False
    for detail in status_pb2.Status.FromString(blob).details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        found = found or detail.Is(retry.DESCRIPTOR)
    return info.reason, found


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


def mesh_of(
    folder: Path, memory: FakeMemory, *models: models_pb2.Model, **scripts: Any
) -> tuple[FakeModels, AbstractAsyncContextManager[RoutingMesh]]:
    fake = FakeModels(list(models), scripts)
    return fake, routing_mesh(folder, memory, fake)


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
    tmp_path: Path, memory: FakeMemory
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
    assert (shown(frames), frames[-1].final.reply_stored) == ("Now.", STORED)


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


async def collect_rest(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_target_that_fails_before_its_first_text_is_passed_over(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(
        tmp_path,
        memory,
        model("bad"),
        model("good"),
        EXTRACTIVE,
        bad=breaks(),
        good=says("good", "Here."),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
        stub = routing_pb2_grpc.RoutingServiceStub(mesh.channel)
        why = await stub.Explain(
            routing_pb2.ExplainRequest(request_id="r1"),
            metadata=(("authorization", "Bearer alice"),),
        )
        with pytest.raises(grpc.aio.AioRpcError) as foreign:
            await stub.Explain(
                routing_pb2.ExplainRequest(request_id="r1"),
                metadata=(("authorization", "Bearer mallory"),),
            )
    assert "restart" not in kinds(frames)
    assert (shown(frames), frames[-1].final.model) == ("Here.", "good")
    assert [(a.model, a.error_reason) for a in why.attempts] == [
        ("bad", "MODEL_UNAVAILABLE"),
        ("good", ""),
    ]
    assert why.decision.model == "good"
    assert reason_of(foreign.value)[0] == "NOT_FOUND"


async def test_a_target_that_breaks_off_is_rescued_with_a_restart(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(
        tmp_path,
        memory,
        model("bad"),
        EXTRACTIVE,
        bad=breaks("half a"),
        extractive=says("extractive", "whole"),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert kinds(frames).count("restart") == 1
    assert shown(frames) == "whole"
    assert list(frames[-1].final.degraded) == ["models"]
    assert memory.reply("r1").text == "whole"  # type: ignore[union-attr]


async def test_a_models_service_that_comes_back_is_tried_again_by_itself(
    tmp_path: Path, memory: FakeMemory
) -> None:
    scripts = iter(
        [breaks("half", reason=Reason.DEPENDENCY_UNAVAILABLE), says("extractive", "whole")]
    )

    def either(request: Any) -> AsyncIterator[Any]:
        return next(scripts)(request)

    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=either)
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert kinds(frames).count("restart") == 1
    assert (shown(frames), frames[-1].final.reply_stored) == ("whole", STORED)


async def test_a_silent_target_loses_its_turn_within_the_tier(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(
        tmp_path,
        memory,
        model("slow"),
        EXTRACTIVE,
        slow=hangs(),
        extractive=says("extractive", "in time"),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask(tier=chat_pb2.TIER_FAST)))
    assert shown(frames) == "in time"
    assert frames[-1].final.first_text.ToTimedelta().total_seconds() < 2.2


async def test_text_that_nobody_can_go_on_with_ends_as_an_error_and_is_stored(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=breaks("half a"))
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert shown(frames) == "half a"
    assert frames[-1].final.finish_reason == conversation_pb2.FINISH_REASON_ERROR
    assert frames[-1].final.reply_stored == STORED


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
        await asyncio.wait_for(models.stopped.wait(), 2.0)
        await asyncio.wait_for(memory.completed.wait(), 2.0)
    reply = memory.reply("r1")
    assert reply is not None
    assert reply.text == "so far"
    assert reply.finish_reason == conversation_pb2.FINISH_REASON_CANCELLED


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
        await asyncio.wait_for(memory.completed.wait(), 2.0)
    reply = memory.reply("r1")
    assert reply is not None
    assert reply.text == "so far and the rest"
    assert reply.finish_reason == conversation_pb2.FINISH_REASON_STOP


async def test_the_deadline_ends_a_reply_with_a_final_frame(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=hangs("so far"))
    async with running as mesh:
        frames = await collect(mesh.chat(ask(), timeout=1.0))
    final = frames[-1].final
    assert shown(frames) == "so far"
    assert final.finish_reason == conversation_pb2.FINISH_REASON_DEADLINE
    assert final.reply_stored in (STORED, UNKNOWN)
    assert final.total.ToTimedelta().total_seconds() < 1.0


async def test_a_private_message_is_answered_and_leaves_nothing(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Sh."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask(store=False)))
    final = frames[-1].final
    assert (shown(frames), memory.turns) == ("Sh.", {})
    assert (final.message_stored, final.reply_stored) == (NOT_STORED, NOT_STORED)


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
        frames = await collect(mesh.chat(ask(tier=chat_pb2.TIER_INSTANT), timeout=2.0))
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
    assert frames[-1].final.first_text.ToTimedelta().total_seconds() < 0.7


async def test_what_recall_lacked_is_passed_on(tmp_path: Path, memory: FakeMemory) -> None:
    memory.recall_degraded = ("embeddings",)
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert list(frames[-1].final.degraded) == ["embeddings"]


async def test_models_away_is_a_clear_error_that_says_when_to_try_again(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        await mesh.stop["models"]()
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await collect(mesh.chat(ask()))
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(away.value) == ("DEPENDENCY_UNAVAILABLE", True)


REFUSED = {
    "NOT_SUPPORTED": (ask(ensemble=True), grpc.StatusCode.UNIMPLEMENTED),
    "MODEL_LACKS_ABILITY": (
        ask(tools=[models_pb2.Tool(name="clock")]),
        grpc.StatusCode.FAILED_PRECONDITION,
    ),
    "NOT_FOUND": (ask(persona="nobody"), grpc.StatusCode.NOT_FOUND),
    "INVALID_REQUEST": (ask(""), grpc.StatusCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_what_cannot_be_done_is_refused_with_its_reason(
    tmp_path: Path, memory: FakeMemory, reason: str
) -> None:
    request, code = REFUSED[reason]
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await collect(mesh.chat(request))
    assert (refused.value.code(), reason_of(refused.value)[0]) == (code, reason)


async def test_tools_go_to_a_model_that_can_and_its_calls_come_back(
    tmp_path: Path, memory: FakeMemory
) -> None:
    async def calls(_: Any) -> AsyncIterator[Any]:
        call = models_pb2.ToolCall(id="1", name="clock", arguments_json="{}")
        yield models_pb2.GenerateResponse(tool_call=call)
        yield models_pb2.GenerateResponse(
            finish=models_pb2.Finish(reason=models_pb2.FINISH_REASON_TOOL_CALLS, model="able")
        )

    models, running = mesh_of(
        tmp_path, memory, model("plain"), model("able", tools=True), EXTRACTIVE, able=calls
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask(tools=[models_pb2.Tool(name="clock")])))
        again = await collect(mesh.chat(ask(tools=[models_pb2.Tool(name="clock")])))
    for run in (frames, again):
        assert next(f.tool_call.name for f in run if f.HasField("tool_call")) == "clock"
    assert frames[-1].final.finish_reason == conversation_pb2.FINISH_REASON_TOOL_CALLS
    assert models.requests[0].tools[0].name == "clock"


async def test_a_turn_that_must_wait_says_so_and_one_too_many_is_refused(
    tmp_path: Path, memory: FakeMemory
) -> None:
    gate = asyncio.Event()
    script = waits_for(gate, "extractive", "a", "b")
    models = FakeModels([EXTRACTIVE], {"extractive": script})
    async with routing_mesh(tmp_path, memory, models, max_turns=1, max_queued_turns=1) as mesh:
        first = mesh.chat(ask(request_id="r1"))
        async for frame in first:
            if frame.WhichOneof("frame") == "text":
                break
        second = mesh.chat(ask(request_id="r2"))
        waiting = [await second.read(), await second.read()]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await collect(mesh.chat(ask(request_id="r3")))
        gate.set()
        await collect_rest(first)
        rest = []
        while (frame := await second.read()) is not grpc.aio.EOF:
            rest.append(frame)
    assert kinds(waiting) == ["accepted", "progress"]
    assert waiting[1].progress.stage == chat_pb2.Progress.STAGE_QUEUED
    assert shown(rest) == "ab"
    assert reason_of(refused.value) == ("OVERLOADED", True)


async def test_two_users_with_the_same_request_id_are_two_turns(
    tmp_path: Path, memory: FakeMemory
) -> None:
    gate = asyncio.Event()
    script = waits_for(gate, "extractive", "a", "b")
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=script)
    async with running as mesh:
        both = [
            asyncio.create_task(collect(mesh.chat(ask(store=False), user=user)))
            for user in ("alice", "bob")
        ]
        gate.set()
        assert [shown(frames) for frames in await asyncio.gather(*both)] == ["ab", "ab"]


async def test_endpoints_are_public_and_name_every_client_facing_service(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE)
    async with running as mesh:
        stub = routing_pb2_grpc.MeshServiceStub(mesh.channel)
        answer = await stub.GetEndpoints(routing_pb2.GetEndpointsRequest())
    names = {endpoint.service for endpoint in answer.endpoints}
    assert {
        "echomesh.auth.v1.AuthService",
        "echomesh.memory.v1.MemoryService",
        "echomesh.routing.v1.ChatService",
    } <= names
    assert all(":" in endpoint.address for endpoint in answer.endpoints)


async def test_feedback_says_that_it_is_not_learned_from_yet(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE)
    async with running as mesh:
        stub = routing_pb2_grpc.RoutingServiceStub(mesh.channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SubmitFeedback(
                routing_pb2.SubmitFeedbackRequest(request_id="r1", score=1.0),
                metadata=(("authorization", "Bearer alice"),),
            )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_refused_begin_is_the_callers_error(tmp_path: Path, memory: FakeMemory) -> None:
    memory.begin_error = AppError(Reason.NOT_FOUND, "no such message", metadata={"type": "message"})
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await collect(mesh.chat(ask(parent_message_id="gone")))
    assert reason_of(refused.value)[0] == "NOT_FOUND"
