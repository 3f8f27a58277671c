"""What the SDK does for its user: tokens, retries, deadlines, typed frames, a sync face."""

from __future__ import annotations

import asyncio
import pickle
import signal
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import echomesh
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.memory.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
)
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc, routing_pb2, routing_pb2_grpc


@dataclass
class FakeMesh(
    auth_pb2_grpc.AuthServiceServicer,
    memory_pb2_grpc.MemoryServiceServicer,
    conversation_pb2_grpc.ConversationServiceServicer,
    chat_pb2_grpc.ChatServiceServicer,
    routing_pb2_grpc.MeshServiceServicer,
):
    """Every client-facing service in one server, with failures on demand."""

    address: str = ""
    unavailable: int = 0
    cut_streams: int = 0
    sign_ins: int = 0
    hang_sign_ins: bool = False
    hang_refreshes: int = 0
    expired: str = ""
    token_life_s: int = 600
    refreshes: list[tuple[str, str]] = field(default_factory=list)
    tokens_seen: list[str] = field(default_factory=list)
    chat_ids: list[str] = field(default_factory=list)
    chats: list[chat_pb2.ChatRequest] = field(default_factory=list)
    appended: list[int] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def GetEndpoints(self, request: Any, context: Any) -> Any:  # noqa: N802
        names = [
            "auth.v1.AuthService",
            "memory.v1.MemoryService",
            "memory.v1.ConversationService",
            "routing.v1.ChatService",
        ]
        return routing_pb2.GetEndpointsResponse(
            endpoints=[
                routing_pb2.Endpoint(service=f"echomesh.{n}", address=self.address) for n in names
            ]
        )

    def _tokens(self, name: str) -> auth_pb2.Tokens:
        tokens = auth_pb2.Tokens(access_token=f"{name}-{self.sign_ins}", refresh_token="r")
        tokens.access_expires_at.FromSeconds(int(time.time()) + self.token_life_s)
        return tokens

    async def ExchangeApiKey(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.sign_ins += 1
        if self.hang_sign_ins:
            await asyncio.sleep(30)
        return auth_pb2.ExchangeApiKeyResponse(tokens=self._tokens("key"))

    async def Refresh(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.refreshes.append((request.refresh_token, request.request_id))
        if self.hang_refreshes:
            self.hang_refreshes -= 1
            await asyncio.sleep(30)
        self.token_life_s = 600
        return auth_pb2.RefreshResponse(tokens=self._tokens("refreshed"))

    async def ExchangeToken(self, request: Any, context: Any) -> Any:  # noqa: N802
        tokens = self._tokens(request.external_user_id)
        return auth_pb2.ExchangeTokenResponse(tokens=tokens, user_id="u")

    async def Recall(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.tokens_seen.append(dict(context.invocation_metadata())["authorization"])
        if self.tokens_seen[-1] == self.expired:
            # The more, the later: the first are back with a new token before the last is refused.
            await asyncio.sleep(0.02 * len(self.tokens_seen))
            info = error_details_pb2.ErrorInfo(reason="TOKEN_EXPIRED", domain="echomesh")
            status = status_pb2.Status(code=16)
            status.details.add().Pack(info)
            details = (("grpc-status-details-bin", status.SerializeToString()),)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "", details)
        if self.unavailable:
            self.unavailable -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        if request.query == "slow":
            await asyncio.sleep(30)
        memory = memory_pb2.Memory(id="m", kind=memory_pb2.MEMORY_KIND_FACT, text=request.query)
        return memory_pb2.RecallResponse(hits=[memory_pb2.RecallHit(memory=memory, score=1)])

    async def AppendMessages(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.appended.append(len(request.messages))
        return conversation_pb2.AppendMessagesResponse(stored=len(request.messages))

    async def Chat(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.chat_ids.append(request.request_id)
        self.chats.append(request)
        accepted = chat_pb2.Accepted(request_id=request.request_id, assistant_name="Echo")
        yield chat_pb2.ChatResponse(seq=1, accepted=accepted)
        if request.text != "tool":
            yield chat_pb2.ChatResponse(seq=2, text=chat_pb2.TextDelta(text="Hel"))
        if request.text == "tool":
            call = models_pb2.ToolCall(id="1", name="pay", arguments_json="{}")
            yield chat_pb2.ChatResponse(seq=3, tool_call=call)
        if self.cut_streams:
            self.cut_streams -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "replica lost")
        if request.text == "endless":
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        yield chat_pb2.ChatResponse(seq=3, text=chat_pb2.TextDelta(text="lo"))
        final = chat_pb2.Final(model="m", reply_stored=chat_pb2.STORE_RESULT_STORED)
        yield chat_pb2.ChatResponse(seq=4, final=final)


@pytest.fixture
async def mesh() -> AsyncIterator[FakeMesh]:
    fake = FakeMesh()
    server = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(fake, server)
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(fake, server)
    conversation_pb2_grpc.add_ConversationServiceServicer_to_server(fake, server)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(fake, server)
    routing_pb2_grpc.add_MeshServiceServicer_to_server(fake, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield fake
    await server.stop(0)


@pytest.fixture
async def client(mesh: FakeMesh) -> AsyncIterator[echomesh.Client]:
    async with echomesh.Client(mesh.address, api_key="k", timeout_s=30) as made:
        yield made


async def test_it_signs_in_once_and_sends_the_token(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    results = await asyncio.gather(*(client.recall(f"q{i}") for i in range(5)))
    assert [r.hits[0].memory.text for r in results] == [f"q{i}" for i in range(5)]
    assert (mesh.sign_ins, set(mesh.tokens_seen)) == (1, {"Bearer key-1"})


async def test_as_user_calls_with_the_end_users_own_token(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    await client.as_user("alice").recall("q")
    assert mesh.tokens_seen == ["Bearer alice-1"]


async def test_an_idempotent_call_is_tried_again_and_gives_up_with_a_typed_error(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    mesh.unavailable = 2
    assert (await client.recall("q")).hits
    mesh.unavailable = 100
    async with echomesh.Client(mesh.address, api_key="k", timeout_s=1) as hasty:
        with pytest.raises(echomesh.EchomeshError) as failed:
            await hasty.recall("q")
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_lost_replica_is_survived_with_the_same_request_id(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    mesh.cut_streams = 1
    frames = [frame async for frame in client.chat("hi")]
    assert any(isinstance(frame, echomesh.Restart) for frame in frames)
    assert len(mesh.chat_ids) == 2
    assert len(set(mesh.chat_ids)) == 1
    text, final = await client.reply("hi")
    assert (text, final.reply_stored) == ("Hello", "stored")


async def test_a_tool_call_of_a_lost_attempt_is_void_and_not_made_twice(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    mesh.cut_streams = 1
    kinds = [type(frame) async for frame in client.chat("tool")]
    calls = [i for i, kind in enumerate(kinds) if kind is echomesh.ToolCall]
    assert len(calls) == 2
    assert echomesh.Restart in kinds[calls[0] : calls[1]]


async def test_a_call_does_not_outlast_its_deadline_behind_another_calls_sign_in(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    mesh.hang_sign_ins = True
    patient = asyncio.create_task(client.recall("q"))
    while not mesh.sign_ins:
        await asyncio.sleep(0.01)
    with pytest.raises(echomesh.EchomeshError) as late:
        await client.reply("hi", timeout_s=0.3)
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not patient.done()
    patient.cancel()


async def test_a_refresh_without_an_answer_is_repeated_under_its_own_id(mesh: FakeMesh) -> None:
    """The same refresh token under another id would count as stolen."""
    mesh.token_life_s = 1
    mesh.hang_refreshes = 1
    async with echomesh.Client(mesh.address, api_key="k", timeout_s=0.5) as client:
        await client.recall("q")
        with pytest.raises(echomesh.EchomeshError):
            await client.recall("q")
        await client.recall("q")
    assert len(mesh.refreshes) == 2
    assert len(set(mesh.refreshes)) == 1


async def test_an_import_of_any_size_is_sent_in_parts_that_a_service_takes(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    long = [echomesh.NewMessage("user", "x" * 32_000) for _ in range(200)]
    short = [echomesh.NewMessage("user", "x") for _ in range(600)]
    assert (await client.import_messages("c", [*long, *short])).stored == 800
    assert sum(mesh.appended) == 800
    assert len(mesh.appended) > 2
    assert max(mesh.appended) <= 500


async def test_leaving_a_chat_early_cancels_it(client: echomesh.Client, mesh: FakeMesh) -> None:
    frames = client.chat("endless")
    async for frame in frames:
        if isinstance(frame, echomesh.Text):
            break
    await frames.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(mesh.cancelled.wait(), 30)


async def test_what_an_application_brings_along_is_sent(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    """An empty history is one too; none at all leaves what is shown to the mesh."""
    said = models_pb2.ChatMessage(role=models_pb2.CHAT_ROLE_USER, content="Ahoy?")
    choice = {"message_key": "k", "tool_choice": "none"}
    await client.reply("hi", instructions="You are a pirate.", history=[said], **choice)
    await client.reply("hi", history=[])
    await client.reply("hi")
    first, empty, without = mesh.chats
    assert (first.instructions, first.message_key) == ("You are a pirate.", "k")
    assert (first.tool_choice, list(first.history.messages)) == ("none", [said])
    assert (empty.HasField("history"), without.HasField("history")) == (True, False)


async def test_closing_ends_the_calls_under_way_and_no_connection_is_opened_again(
    mesh: FakeMesh,
) -> None:
    """As an error of this package: nobody cancelled the tasks that wait."""
    client = echomesh.Client(mesh.address, api_key="k", timeout_s=60)
    recall = asyncio.create_task(client.recall("slow"))
    chat = asyncio.create_task(client.reply("endless"))
    while not (mesh.tokens_seen and mesh.chats):
        await asyncio.sleep(0.01)
    await client.close()
    ended = await asyncio.gather(recall, chat, client.recall("q"), return_exceptions=True)
    assert [getattr(each, "code", each) for each in ended] == [grpc.StatusCode.CANCELLED] * 3
    assert (len(mesh.tokens_seen), len(mesh.chats)) == (1, 1)


def test_an_error_can_be_sent_to_another_process() -> None:
    error = echomesh.EchomeshError(
        code=grpc.StatusCode.NOT_FOUND, message="m", reason="NOT_FOUND", metadata={"type": "memory"}
    )
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert (str(copy), copy.code, copy.metadata) == (str(error), error.code, error.metadata)


async def test_a_deadline_is_kept(mesh: FakeMesh) -> None:
    async with echomesh.Client(mesh.address, api_key="k", timeout_s=0.3) as client:
        with pytest.raises(echomesh.EchomeshError) as late:
            await client.recall("slow")
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_that_was_not_answered_tells_its_trace_all_the_same(
    mesh: FakeMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echomesh._trace._HAS_OPENTELEMETRY", False)
    async with echomesh.Client(mesh.address, api_key="k", timeout_s=0.3) as client:
        with pytest.raises(echomesh.EchomeshError) as late:
            await client.recall("slow")
    assert len(late.value.trace_id) == 32


async def test_the_sync_face_works_in_a_running_loop_and_in_threads(mesh: FakeMesh) -> None:
    def use() -> tuple[str, int]:
        with echomesh.SyncClient(mesh.address, api_key="k") as client:
            text, _ = client.reply("hi")
            return text, len(list(client.chat("hi")))

    # The fake serves on this very loop, so the blocking client is used from threads.
    assert await asyncio.gather(*(asyncio.to_thread(use) for _ in range(3))) == [("Hello", 4)] * 3


def test_ctrl_c_in_a_sync_chat_ends_it_and_stays_a_ctrl_c() -> None:
    from echomesh._sync import _Loop

    closed: list[bool] = []

    async def frames() -> AsyncIterator[int]:
        try:
            yield 1
            main = threading.main_thread().ident
            threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT)).start()
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            closed.append(True)

    # Where tests run in the background SIGINT is ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        loop = _Loop()
        items = loop.iterate(frames())
        assert next(items) == 1
        with pytest.raises(KeyboardInterrupt):
            next(items)
        loop.stop()
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed == [True]


def test_an_unknown_tier_is_refused_before_anything_is_sent() -> None:
    async def use() -> None:
        client = echomesh.Client("127.0.0.1:1", api_key="k")
        with pytest.raises(ValueError, match="tier"):
            async for _ in client.chat("hi", tier="warp"):
                pass

    asyncio.run(use())


def test_a_kind_of_memory_newer_than_the_client_is_read_all_the_same() -> None:
    from echomesh import _types

    newer = memory_pb2.Memory(id="m", text="t")
    newer.kind = 99  # type: ignore[assignment]
    assert (_types.memory(newer).text, _types.memory(newer).kind) == ("t", "99")


async def test_a_fresh_token_is_not_dropped_for_an_older_one_that_was_refused(
    client: echomesh.Client, mesh: FakeMesh
) -> None:
    """Many calls may be refused with one expired token; one renewal is enough for all."""
    mesh.expired = "Bearer key-1"
    await asyncio.gather(*(client.recall(f"q{i}") for i in range(8)))
    assert len(mesh.refreshes) == 1


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:7400", True),
        ("localhost:7400", True),
        ("[::1]:7400", True),
        ("ipv4:127.0.0.1:7400", True),
        ("mesh.example:443", False),
        ("10.0.0.1:7400", False),
    ],
)
def test_tls_is_left_out_for_this_machine_alone(address: str, loopback: bool) -> None:
    from echomesh._session import is_loopback

    assert is_loopback(address) is loopback


def test_everything_the_package_names_can_be_had_and_nothing_else_leaks() -> None:
    for name in echomesh.__all__:
        assert getattr(echomesh, name) is not None
    with pytest.raises(AttributeError):
        _ = echomesh.nothing_of_that_name  # type: ignore[attr-defined]
