"""What routing refuses, passes on to models that can, and keeps waiting; and who is told apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.memory.v1 import conversation_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2, routing_pb2_grpc
from tests.support.routing_frames import (
    EXTRACTIVE,
    collect,
    collect_rest,
    kinds,
    mesh_of,
    reason_of,
    shown,
)
from tests.support.routing_mesh import (
    FakeMemory,
    FakeModels,
    ask,
    model,
    routing_mesh,
    says,
    waits_for,
)


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


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
    """Both run to their ends at once: were they one turn, the later would stop the earlier."""
    gate = asyncio.Event()
    script = waits_for(gate, "extractive", "a", "b")
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=script)
    async with running as mesh:
        calls = [mesh.chat(ask(), user=user) for user in ("alice", "bob")]
        for call in calls:
            async for frame in call:
                if frame.WhichOneof("frame") == "text":
                    break
        gate.set()
        for call in calls:
            await collect_rest(call)
    for user in ("alice", "bob"):
        reply = memory.reply("r1", user)
        assert reply is not None
        assert reply.text == "ab"


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
