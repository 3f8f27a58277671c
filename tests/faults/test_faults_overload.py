"""Case 12: three times what the mesh takes. The excess is told to come later."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from echomesh import Client
from echomesh._session import Deadline
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc
from tests.support.mesh import RunningMesh, metric, running_mesh
from tests.support.openai_double import Answer, OpenAIDouble, _chunk, _head, delta, reply

RUNNING, QUEUED = 4, 4
CAPACITY = RUNNING + QUEUED
WAVES = 6
WAIT_S = 60.0
# What waves after the first may add to routing's memory; one leaked chat a refusal would show.
GROWTH_BYTES = 32 * 2**20
# Well below the least time after which a silent model is given up.
DOT_S = 0.2

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


class PatientModel(OpenAIDouble):
    """Says dots until it is told to go on, so that chats stay as long as the test wants."""

    go_on: asyncio.Event

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(answer.status, answer.content_type) + _chunk(answer.parts[0]))
        await writer.drain()
        while not self.go_on.is_set():
            writer.write(_chunk(delta(".")))
            await writer.drain()
            await asyncio.sleep(DOT_S)
        for part in (*answer.parts[1:], b""):
            writer.write(_chunk(part))
        await writer.drain()


@dataclass
class World:
    """A mesh that runs four chats and lets four wait, and what calls it bare."""

    mesh: RunningMesh
    model: PatientModel
    client: Client
    channel: grpc.aio.Channel

    async def token(self) -> str:
        return await self.client._tokens.access_token(Deadline(10))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Started and stopped in a thread, since the model lives on this very loop."""
    model = PatientModel(answers=[reply("Whole", " reply")])
    model.go_on = asyncio.Event()
    model.go_on.set()
    await model.start()
    running = running_mesh(_folder(tmp_path_factory), env=_limits(model))
    mesh = await asyncio.to_thread(running.__enter__)
    try:
        async with (
            Client(mesh.file.address, api_key=mesh.credentials.api_key) as client,
            grpc.aio.insecure_channel(mesh.file.address) as channel,
        ):
            await _model_found(client)
            yield World(mesh, model, client, channel)
    finally:
        model.go_on.set()
        await asyncio.to_thread(running.__exit__, None, None, None)
        await model.stop()


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overload") / "data"


def _limits(model: OpenAIDouble) -> dict[str, str]:
    return {
        "ECHOMESH_MODELS_UPSTREAMS": json.dumps([{"url": model.url}]),
        "ECHOMESH_ROUTING_MAX_TURNS": str(RUNNING),
        "ECHOMESH_ROUTING_MAX_QUEUED_TURNS": str(QUEUED),
    }


async def _model_found(client: Client) -> None:
    """Wait until a reply comes from the model: it is found by a probe."""
    async with asyncio.timeout(WAIT_S):
        while (await client.reply("Hello?", store=False))[1].model == "extractive":
            await asyncio.sleep(0.1)


@dataclass
class Outcomes:
    """How bare chats ended: with a final frame, or with an error."""

    finals: list[chat_pb2.Final] = field(default_factory=list)
    errors: list[grpc.aio.AioRpcError] = field(default_factory=list)

    async def chat(self, world: World, token: str) -> None:
        """One chat without any retry."""
        request = chat_pb2.ChatRequest(
            request_id=str(uuid.uuid4()),
            conversation_id=str(uuid.uuid4()),
            text="Tell me a story about a lighthouse.",
            store=False,
        )
        stub = chat_pb2_grpc.ChatServiceStub(world.channel)
        call = stub.Chat(request, metadata=[("authorization", f"Bearer {token}")], timeout=WAIT_S)
        try:
            async for response in call:
                if response.WhichOneof("frame") == "final":
                    self.finals.append(response.final)
        except grpc.aio.AioRpcError as error:
            self.errors.append(error)


async def _wave(world: World, token: str, count: int) -> Outcomes:
    """Start so many chats at once, let them end once the excess has been refused."""
    world.model.go_on.clear()
    outcomes = Outcomes()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(outcomes.chat(world, token))
        while len(outcomes.errors) < count - CAPACITY:
            await asyncio.sleep(0.02)
        await _answers_health(world)
        world.model.go_on.set()
    return outcomes


async def _answers_health(world: World) -> None:
    """Whether routing says SERVING while every place is taken."""
    stub = health_pb2_grpc.HealthStub(world.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    found = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return status_pb2.Status.FromString(found)


def _reason_and_wait(error: grpc.aio.AioRpcError) -> tuple[str, str, bool]:
    """Reason, queue, and whether the error says when to come again."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in _details(error).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    return info.reason, info.metadata["queue"], retry.retry_delay.ToNanoseconds() > 0


async def test_the_excess_is_refused_with_a_time_to_come_again_and_the_rest_is_served(
    world: World,
) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo at once for 16 of 24; health answers; 8 get it all."""
    outcomes = await _wave(world, await world.token(), 3 * CAPACITY)
    assert len(outcomes.finals) == CAPACITY
    assert {final.model for final in outcomes.finals} == {"openai/tiny"}
    assert len(outcomes.errors) == 2 * CAPACITY
    assert {e.code() for e in outcomes.errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {_reason_and_wait(e) for e in outcomes.errors} == {("OVERLOADED", "turns", True)}


async def test_wave_after_wave_memory_stays_bounded_and_every_place_is_free_again(
    world: World,
) -> None:
    """What is refused leaves nothing behind; after the last wave a calm load is served whole."""
    token = await world.token()
    await _wave(world, token, 3 * CAPACITY)
    before = _resident(world.mesh)
    for _ in range(WAVES):
        outcomes = await _wave(world, token, 3 * CAPACITY)
        assert len(outcomes.finals) == CAPACITY
    assert _resident(world.mesh) - before < GROWTH_BYTES
    calm = await _wave(world, token, CAPACITY)
    assert (len(calm.finals), calm.errors) == (CAPACITY, [])


def _resident(mesh: RunningMesh) -> int:
    process: psutil.Process = mesh.service("routing")
    return int(process.memory_info().rss)


async def _refusals(world: World) -> float:
    """How many calls routing has refused so far."""
    address, code = world.mesh.file.metrics["routing"], 'code="RESOURCE_EXHAUSTED"'
    return await asyncio.to_thread(metric, address, "echomesh_rpc_server_seconds_count", code)


async def test_users_of_the_sdk_wait_as_they_are_told_and_are_served(world: World) -> None:
    """A burst that is over soon costs an SDK's user time and no error."""
    world.model.go_on.clear()
    refused = await _refusals(world)
    chats = [
        asyncio.create_task(world.client.as_user(f"burst-{i}").reply("Hello!", store=False))
        for i in range(CAPACITY + 4)
    ]
    async with asyncio.timeout(WAIT_S):
        while await _refusals(world) == refused:
            await asyncio.sleep(0.05)
        world.model.go_on.set()
        replies = await asyncio.gather(*chats)
    assert all(text.endswith("reply") for text, _ in replies)


async def test_a_flood_of_reads_is_served_or_told_and_memory_answers_afterwards(
    world: World,
) -> None:
    """Far more recalls at once than Postgres connections: each is answered or clearly refused."""
    user = world.client.as_user("flood")
    await user.remember("The kettle is blue.")
    asked = [user.recall("kettle") for _ in range(150)]
    async with asyncio.timeout(WAIT_S):
        found = await asyncio.gather(*asked, return_exceptions=True)
    failed = [f for f in found if isinstance(f, BaseException)]
    assert {getattr(f, "reason", repr(f)) for f in failed} <= {
        "OVERLOADED",
        "DEPENDENCY_UNAVAILABLE",
    }
    assert len(failed) < len(found)
    assert (await user.recall("kettle")).hits
