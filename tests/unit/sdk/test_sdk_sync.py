"""The synchronous client has all that the asynchronous one has, and ends cleanly."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

import echomesh
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.common.v1 import errors_pb2
from echomesh.memory.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
)
from echomesh.routing.v1 import routing_pb2, routing_pb2_grpc
from services.runtime.errors import AppError, Reason
from services.runtime.status import DETAILS_KEY, to_status

PUBLIC = sorted(name for name in dir(echomesh.Client) if not name.startswith("_"))


@pytest.mark.parametrize("name", PUBLIC)
def test_the_sync_client_has_every_method_with_the_same_arguments(name: str) -> None:
    """What awaits returns its result, what is iterated asynchronously is iterated."""
    theirs, ours = getattr(echomesh.Client, name), getattr(echomesh.SyncClient, name)
    parameters = [list(inspect.signature(f).parameters.values())[1:] for f in (theirs, ours)]
    assert parameters[0] == parameters[1]
    assert ours.__doc__
    assert not asyncio.iscoroutinefunction(ours)
    assert not inspect.isasyncgenfunction(ours)


def test_the_sync_client_has_nothing_that_the_async_one_lacks() -> None:
    ours = sorted(name for name in dir(echomesh.SyncClient) if not name.startswith("_"))
    assert ours == PUBLIC


def test_both_clients_are_made_with_the_same_arguments() -> None:
    theirs = set(inspect.signature(echomesh.Client).parameters)
    ours = inspect.signature(echomesh.SyncClient).parameters
    assert set(ours) - {"options"} <= theirs
    assert ours["options"].kind is inspect.Parameter.VAR_KEYWORD


class FakeMesh(
    auth_pb2_grpc.AuthServiceServicer,
    memory_pb2_grpc.MemoryServiceServicer,
    conversation_pb2_grpc.ConversationServiceServicer,
    routing_pb2_grpc.MeshServiceServicer,
):
    """What little of a mesh these tests call."""

    address = ""
    used: typing.ClassVar[set[str]] = {"used"}

    async def GetEndpoints(self, request: Any, context: Any) -> Any:  # noqa: N802
        names = ("auth.v1.AuthService", "memory.v1.MemoryService", "memory.v1.ConversationService")
        found = [
            routing_pb2.Endpoint(service=f"echomesh.{name}", address=self.address) for name in names
        ]
        return routing_pb2.GetEndpointsResponse(endpoints=found)

    async def ExchangeApiKey(self, request: Any, context: Any) -> Any:  # noqa: N802
        tokens = auth_pb2.Tokens(access_token="a", refresh_token="r")
        tokens.access_expires_at.FromSeconds(int(time.time()) + 600)
        return auth_pb2.ExchangeApiKeyResponse(tokens=tokens)

    recalled = threading.Event()

    async def Recall(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.recalled.set()
        if request.query == "away":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        await asyncio.sleep(600)

    async def GetIndexStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return memory_pb2.GetIndexStatusResponse(memories=3, pending=1)

    async def UpdateMemory(self, request: Any, context: Any) -> Any:  # noqa: N802
        memory = memory_pb2.Memory(id=request.memory.id, text=request.request_id)
        return memory_pb2.UpdateMemoryResponse(memory=memory)

    async def ListMemories(self, request: Any, context: Any) -> Any:  # noqa: N802
        token = "" if request.page_token else "more"
        memory = memory_pb2.Memory(id="m", text=request.page_token)
        return memory_pb2.ListMemoriesResponse(memories=[memory], next_page_token=token)

    async def AppendMessages(self, request: Any, context: Any) -> Any:  # noqa: N802
        refused = [
            conversation_pb2.RefusedMessage(
                index=place, reason=errors_pb2.ERROR_REASON_REQUEST_ID_REUSED
            )
            for place, message in enumerate(request.messages)
            if message.request_id in self.used
        ]
        if len(refused) == len(request.messages):
            error = AppError(Reason.REQUEST_ID_REUSED, "used")
            code, status = to_status(error, "0" * 32)
            await context.abort(code, "", ((DETAILS_KEY, status.SerializeToString()),))
        stored = len(request.messages) - len(refused)
        return conversation_pb2.AppendMessagesResponse(stored=stored, refused=refused)


@pytest.fixture
def mesh() -> Iterator[str]:
    """The address of a mesh that runs in a thread of its own, as the client's caller is blocked."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    fake = FakeMesh()

    async def serve() -> None:
        server = grpc.aio.server()
        auth_pb2_grpc.add_AuthServiceServicer_to_server(fake, server)
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(fake, server)
        conversation_pb2_grpc.add_ConversationServiceServicer_to_server(fake, server)
        routing_pb2_grpc.add_MeshServiceServicer_to_server(fake, server)
        fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield fake.address
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


def test_the_sync_client_says_how_far_the_index_is_corrects_and_finds_endpoints(mesh: str) -> None:
    with echomesh.SyncClient(mesh, api_key="k") as client:
        assert client.index_status() == (3, 1)
        assert client.correct("m", "new", request_id="mine").text == "mine"
        assert client.endpoints()["echomesh.memory.v1.MemoryService"] == mesh
        assert [memory.text for memory in client.memories(page_size=1)] == ["", "more"]


def test_an_import_says_which_messages_were_refused_and_stores_the_others(mesh: str) -> None:
    """Also where nothing else is left, which the mesh tells as an error of the whole call."""
    new = echomesh.NewMessage("user", "new", request_id="new")
    used = echomesh.NewMessage("user", "changed", request_id="used")
    with echomesh.SyncClient(mesh, api_key="k") as client:
        both = client.import_messages("c", [used, new])
        alone = client.import_messages("c", [used])
    assert both == echomesh.ImportResult(1, 0, ("used",))
    assert alone == echomesh.ImportResult(0, 0, ("used",))


def test_closing_twice_is_fine_and_a_closed_client_says_so(mesh: str) -> None:
    client = echomesh.SyncClient(mesh, api_key="k")
    user = client.as_user("alice")
    left = client.memories()
    assert next(left).id == "m"
    client.close()
    client.close()
    user.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.index_status()
    left.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("query", ["slow", "away"])
def test_closing_ends_what_other_threads_wait_for(mesh: str, query: str) -> None:
    """An answer, or another attempt."""
    client = echomesh.SyncClient(mesh, api_key="k", timeout_s=600)
    ended: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(BaseException) as closed:
            client.recall(query)
        ended.append(closed.value)

    FakeMesh.recalled.clear()
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert FakeMesh.recalled.wait(30)
    client.close()
    thread.join(30)
    assert [str(error) for error in ended] == ["CANCELLED: the client is closed"]


def test_closing_an_end_users_client_leaves_the_others_open(mesh: str) -> None:
    with echomesh.SyncClient(mesh, api_key="k") as client:
        client.as_user("alice").close()
        assert client.index_status() == (3, 1)


async def test_the_async_client_may_be_closed_twice(mesh: str) -> None:
    client = echomesh.Client(mesh, api_key="k")
    assert await client.index_status() == (3, 1)
    await client.close()
    await client.close()
    await client.as_user("alice").close()


async def test_both_have_iterators_where_pages_are_read(mesh: str) -> None:
    async with echomesh.Client(mesh, api_key="k") as client:
        found: AsyncIterator[echomesh.Memory] = client.memories()
        assert [memory.text async for memory in found] == ["", "more"]
