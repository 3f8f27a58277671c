"""Tokens that expire and keys that change under way trouble nobody: the SDK sees to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import pytest_asyncio

import echomesh
from echomesh import Client
from echomesh._session import Deadline
from echomesh.auth.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from echomesh.memory.v1 import conversation_pb2, conversation_pb2_grpc
from echomesh.routing.v1 import routing_pb2, routing_pb2_grpc
from tests.support.mesh import RunningMesh, running_mesh
from tests.support.openai_double import Answer, OpenAIDouble, _chunk, _head, delta, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 30.0

DOT_S = 0.2
"""Well below the least time after which a silent model is given up."""

TOKEN_S = 5
"""What a token is good for in this mesh, the least that auth allows."""

LEEWAY_S = 5
"""Validators forgive clocks that much."""

PUBLISH_AHEAD_S = 30
"""From publishing a key to its use, the least that auth allows."""


class PausingDouble(OpenAIDouble):
    """Sends the first piece of a reply, dots meanwhile, and the rest when told to go on.

    A model that says nothing at all for a while has stalled, and routing rightly gives it up.
    """

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
    """A mesh with short-lived tokens whose model waits for a sign."""

    mesh: RunningMesh
    double: PausingDouble
    client: Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Started and stopped in a thread, since the double lives on this very loop."""
    double = PausingDouble()
    double.go_on = asyncio.Event()
    double.go_on.set()
    await double.start()
    data: Path = tmp_path_factory.mktemp("tokens") / "data"
    env = {
        "ECHOMESH_AUTH_ACCESS_TOKEN_TTL_S": str(TOKEN_S),
        "ECHOMESH_AUTH_KEY_PUBLISH_AHEAD_S": str(PUBLISH_AHEAD_S),
        "ECHOMESH_MODELS_UPSTREAMS": json.dumps([{"url": double.url}]),
    }
    running = running_mesh(data, env=env)
    mesh = await asyncio.to_thread(running.__enter__)
    try:
        async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
            await _model_found(client)
            yield World(mesh, double, client)
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
        await double.stop()


async def _model_found(client: Client) -> None:
    """Wait until a reply comes from the model: it is found by a probe."""
    async with asyncio.timeout(WAIT_S):
        while (await client.reply("Hello?", store=False))[1].model == "extractive":
            await asyncio.sleep(0.1)


async def _expired(token: str) -> None:
    """Wait until no validator takes the token any more."""
    claims = jwt.decode(token, options={"verify_signature": False})
    await asyncio.sleep(claims["exp"] + LEEWAY_S + 0.5 - time.time())


async def test_a_token_that_expires_under_a_running_reply_does_not_end_it(world: World) -> None:
    """The reply goes on and is stored although the token it began with is void by then."""
    user = world.client.as_user("patient")
    world.double.answers[:] = [reply("Slow", " but", " whole.")]
    world.double.go_on.clear()
    frames: list[echomesh.Frame] = []
    async for frame in user.chat("Take your time with this story.", conversation_id="c"):
        frames.append(frame)
        if isinstance(frame, echomesh.Text) and not world.double.go_on.is_set():
            token = _token_in_use(user)
            await _expired(token)
            assert await _refusal(world, token) is grpc.StatusCode.UNAUTHENTICATED
            world.double.go_on.set()
    final = frames[-1]
    assert isinstance(final, echomesh.Final)
    assert not any(isinstance(frame, echomesh.Restart) for frame in frames)
    text = "".join(f.text for f in frames if isinstance(f, echomesh.Text))
    assert text.replace(".", "") == "Slow but whole"
    assert (final.message_stored, final.reply_stored) == ("stored", "stored")
    # The same client goes on with a new token, of which it says nothing.
    assert [m.text async for m in user.messages("c")][1] == text


def _token_in_use(user: Client) -> str:
    """The token that the last call of this user was made with, not renewed by asking."""
    tokens = user._tokens._tokens
    assert tokens is not None
    return tokens.access_token


async def _refusal(world: World, token: str) -> grpc.StatusCode:
    """The status with which memory answers a bare call with this token."""
    async with grpc.aio.insecure_channel(_address(world.mesh, "memory")) as channel:
        return await _status(_list_conversations(channel, token))


def _address(mesh: RunningMesh, service: str) -> str:
    """Where a service listens for clients."""
    return f"127.0.0.1:{mesh.port_base + ('routing', 'auth', 'memory').index(service)}"


def _list_conversations(channel: grpc.aio.Channel, token: str) -> Any:
    stub = conversation_pb2_grpc.ConversationServiceStub(channel)
    request = conversation_pb2.ListConversationsRequest()
    return stub.ListConversations(request, metadata=_bearer(token), timeout=10)


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


async def _status(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


_WELCOME = [grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND]
"""What auth, memory and routing answer to a good token; routing is asked for no turn there is."""


@dataclass
class Traffic:
    """Bare calls with every token that is good, with no retry that would hide a refusal."""

    auth: grpc.aio.Channel
    memory: grpc.aio.Channel
    routing: grpc.aio.Channel
    api_key: str
    live: list[auth_pb2.Tokens] = field(default_factory=list)
    calls: int = 0
    refused: list[list[str]] = field(default_factory=list)

    async def once(self) -> str:
        """Get one more token, use all that are good for a while; return the newest one's key."""
        request = auth_pb2.ExchangeApiKeyRequest(api_key=self.api_key)
        answer = await auth_pb2_grpc.AuthServiceStub(self.auth).ExchangeApiKey(request, timeout=10)
        self.live.append(answer.tokens)
        # What is used now arrives well before it expires.
        self.live = [t for t in self.live if t.access_expires_at.seconds - time.time() > 1.5]
        await asyncio.gather(*(self._use(tokens.access_token) for tokens in self.live))
        return str(jwt.get_unverified_header(answer.tokens.access_token)["kid"])

    async def _use(self, token: str) -> None:
        me, turn = auth_pb2.WhoAmIRequest(), routing_pb2.ExplainRequest(request_id="no-such-turn")
        options = {"metadata": _bearer(token), "timeout": 10}
        self.calls += 3
        answers = [
            await _status(auth_pb2_grpc.AuthServiceStub(self.auth).WhoAmI(me, **options)),
            await _status(_list_conversations(self.memory, token)),
            await _status(
                routing_pb2_grpc.RoutingServiceStub(self.routing).Explain(turn, **options)
            ),
        ]
        if answers != _WELCOME:
            self.refused.append([status.name for status in answers])


async def test_a_signing_key_changes_and_no_good_token_is_refused(world: World) -> None:
    """From publishing the new key to the end of the last old token every good token is taken."""
    mesh = world.mesh
    async with (
        grpc.aio.insecure_channel(_address(mesh, "auth")) as auth,
        grpc.aio.insecure_channel(_address(mesh, "memory")) as memory,
        grpc.aio.insecure_channel(_address(mesh, "routing")) as routing,
    ):
        traffic = Traffic(auth, memory, routing, mesh.credentials.api_key)
        old = await traffic.once()
        published = await _rotate(world, auth)
        assert published.key_id != old
        await _until_signed_by(traffic, published.key_id)
        assert time.time() >= published.signs_from.seconds
        await _keep_on(traffic, TOKEN_S + LEEWAY_S)
        assert traffic.refused == []
        assert traffic.calls > 100
    # The SDK's own client went through all of it and never needed to know.
    assert (await world.client.reply("Still there?", store=False))[0]


async def _rotate(world: World, auth: grpc.aio.Channel) -> admin_pb2.RotateSigningKeyResponse:
    """Publish a key as the operator; asked again, the same key is meant."""
    token = await world.client._tokens.access_token(Deadline(10))
    stub = admin_pb2_grpc.AdminServiceStub(auth)
    request = admin_pb2.RotateSigningKeyRequest(request_id="rotate-1")
    first = await stub.RotateSigningKey(request, metadata=_bearer(token), timeout=10)
    again = await stub.RotateSigningKey(request, metadata=_bearer(token), timeout=10)
    assert again == first
    return first


async def _until_signed_by(traffic: Traffic, key_id: str) -> None:
    """Call without a pause until new tokens are signed by the key."""
    async with asyncio.timeout(PUBLISH_AHEAD_S + WAIT_S):
        while await traffic.once() != key_id:
            await asyncio.sleep(0.5)


async def _keep_on(traffic: Traffic, seconds: float) -> None:
    """Call for a while more: until every token of the old key has expired."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await traffic.once()
        await asyncio.sleep(0.5)
