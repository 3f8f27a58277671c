"""The memory service over gRPC: every RPC, as users and services call it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from echomesh.common.v1 import errors_pb2
from echomesh.memory.v1 import conversation_pb2 as cpb
from echomesh.memory.v1 import conversation_pb2_grpc as cpb_grpc
from echomesh.memory.v1 import memory_pb2 as mpb
from echomesh.memory.v1 import memory_pb2_grpc as mpb_grpc
from services.memory.conversation_service import ConversationServicer
from services.memory.memory_service import MemoryServicer
from services.runtime.channel import MeshChannel
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, acting_as
from services.runtime.server import Registration
from tests.support.memory_world import NOW, World, emptied_database, memory_world
from tests.support.postgres import PostgresServer
from tests.support.transport import serving


class NamedTokens:
    """Takes "tenant/user" for a token."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        """The identity that the token names."""
        tenant, _, user = token.partition("/")
        return Identity(tenant, user, frozenset({"user"}))


class As:
    """Stubs that call as one user through the mesh listener, as routing does."""

    def __init__(self, channel: MeshChannel, token: str) -> None:
        self._stubs = (
            cpb_grpc.ConversationServiceStub(channel),
            mpb_grpc.MemoryServiceStub(channel),
        )
        tenant, _, user = token.partition("/")
        self._identity = Identity(tenant, user)
        self._token = token

    async def __call__(self, method: str, request: Any) -> Any:
        """Call an RPC by its name."""
        stub = next(s for s in self._stubs if hasattr(s, method))
        with acting_as(self._identity, self._token):
            return await getattr(stub, method)(request)


@dataclass
class Memory:
    """A served memory."""

    world: World
    alice: As
    bob: As
    public: grpc.aio.Channel


@pytest_asyncio.fixture
async def memory(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Memory]:
    async with memory_world(await emptied_database(postgres)) as world:
        parts = (FakeClock(NOW), uuid.uuid4, world.runner.wake)
        registrations = [
            Registration(
                cpb_grpc.add_ConversationServiceServicer_to_server,
                ConversationServicer(world.store, *parts),
                "echomesh.memory.v1.ConversationService",
            ),
            Registration(
                mpb_grpc.add_MemoryServiceServicer_to_server,
                MemoryServicer(world.store, world.recaller, *parts),
                "echomesh.memory.v1.MemoryService",
            ),
        ]
        validator: Any = NamedTokens()
        async with (
            serving(tmp_path, *registrations, validator=validator) as wire,
            wire.mesh("routing") as mesh,
            wire.raw() as public,
        ):
            yield Memory(world, As(mesh, "acme/alice"), As(mesh, "acme/bob"), public)


def new(request_id: str, text: str) -> cpb.NewMessage:
    return cpb.NewMessage(request_id=request_id, role=cpb.MESSAGE_ROLE_USER, text=text)


def begin(request_id: str = "t1", **more: Any) -> cpb.BeginTurnRequest:
    body = {"conversation_id": "c1", "text": "hello", "body_sha256": b"h" * 32, **more}
    return cpb.BeginTurnRequest(request_id=request_id, recent_limit=10, **body)


async def test_memory_grpc_conversation_from_creation_to_deletion(memory: Memory) -> None:
    alice = memory.alice
    made = await alice(
        "CreateConversation", cpb.CreateConversationRequest(request_id="r", title="T")
    )
    conversation_id = made.conversation.id
    messages = [new(f"m{i}", f"text {i}") for i in range(3)]
    request = cpb.AppendMessagesRequest(conversation_id=conversation_id, messages=messages)
    first = await alice("AppendMessages", request)
    again = await alice("AppendMessages", request)
    assert (first.stored, first.duplicates) == (3, 0)
    assert (again.stored, again.duplicates) == (0, 3)
    assert first.message_ids == again.message_ids
    found = await alice(
        "GetConversation", cpb.GetConversationRequest(conversation_id=conversation_id)
    )
    assert (found.conversation.message_count, found.conversation.title) == (3, "T")
    message = await alice("GetMessage", cpb.GetMessageRequest(message_id=first.message_ids[1]))
    assert (
        message.message.text,
        message.message.speaker,
        message.message.seq,
    ) == ("text 1", "user", 2)
    deleted = await alice(
        "DeleteConversation", cpb.DeleteConversationRequest(conversation_id=conversation_id)
    )
    assert deleted.deleted_messages == 3
    listed = await alice("ListConversations", cpb.ListConversationsRequest())
    assert len(listed.conversations) == 0


async def test_memory_grpc_a_used_request_id_is_refused_with_another_body(memory: Memory) -> None:
    """Of several messages by itself, else as the call's error; in another conversation too."""

    async def append(conversation_id: str, *messages: cpb.NewMessage) -> Any:
        request = cpb.AppendMessagesRequest(conversation_id=conversation_id, messages=messages)
        return await memory.alice("AppendMessages", request)

    await append("c1", new("m1", "text 1"))
    for conversation_id, text in (("c1", "other"), ("c2", "text 1")):
        with pytest.raises(AppError) as alone:
            await append(conversation_id, new("m1", text))
        assert alone.value.reason is Reason.REQUEST_ID_REUSED
    mixed = await append("c1", new("m1", "other"), new("m1", "text 1"), new("m2", "text 2"))
    assert (mixed.stored, mixed.duplicates) == (1, 1)
    assert [(r.index, r.reason) for r in mixed.refused] == [
        (0, errors_pb2.ERROR_REASON_REQUEST_ID_REUSED)
    ]
    assert [bool(message_id) for message_id in mixed.message_ids] == [False, True, True]
    listed = await memory.alice("ListMessages", cpb.ListMessagesRequest(conversation_id="c1"))
    assert [m.text for m in listed.messages] == ["text 1", "text 2"]


async def test_memory_grpc_remember_refuses_a_used_request_id_with_another_body(
    memory: Memory,
) -> None:
    async def remember(**fields: Any) -> Any:
        new_memory = mpb.NewMemory(request_id="r1", **fields)
        return await memory.alice("Remember", mpb.RememberRequest(memory=new_memory))

    first = await remember(text="a fact")
    assert await remember(text="a fact") == first
    for other in ({"text": "another"}, {"text": "a fact", "speaker": "Maya"}):
        with pytest.raises(AppError) as refused:
            await remember(**other)
        assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_memory_grpc_lists_page_through_everything_once(memory: Memory) -> None:
    messages = [new(f"m{i}", f"text {i}") for i in range(5)]
    await memory.alice(
        "AppendMessages", cpb.AppendMessagesRequest(conversation_id="c1", messages=messages)
    )
    for descending in (False, True):
        seen, token = [], ""
        while True:
            page = await memory.alice(
                "ListMessages",
                cpb.ListMessagesRequest(
                    conversation_id="c1", page_size=2, page_token=token, descending=descending
                ),
            )
            seen += [m.seq for m in page.messages]
            token = page.next_page_token
            if not token:
                break
        assert sorted(range(1, 6), reverse=descending) == seen
    seen_ids: list[str] = []
    token = ""
    while True:
        found = await memory.alice(
            "ListMemories", mpb.ListMemoriesRequest(page_size=2, page_token=token)
        )
        seen_ids += [m.id for m in found.memories]
        token = found.next_page_token
        if not token:
            break
    assert 5 == len(set(seen_ids)) == len(seen_ids)


async def test_memory_grpc_page_token_is_bound_to_its_query(memory: Memory) -> None:
    messages = [new(f"m{i}", f"text {i}") for i in range(3)]
    await memory.alice(
        "AppendMessages", cpb.AppendMessagesRequest(conversation_id="c1", messages=messages)
    )
    page = await memory.alice(
        "ListMessages", cpb.ListMessagesRequest(conversation_id="c1", page_size=1)
    )
    for token in (page.next_page_token, "nonsense", "AAAA"):
        with pytest.raises(AppError) as caught:
            await memory.alice(
                "ListMessages",
                cpb.ListMessagesRequest(conversation_id="c1", page_token=token, descending=True),
            )
        assert caught.value.reason == Reason.INVALID_PAGE_TOKEN


async def test_memory_grpc_turn_is_begun_completed_and_replayed(memory: Memory) -> None:
    begun = await memory.alice("BeginTurn", begin())
    assert (begun.epoch, begun.message.text, begun.HasField("reply")) == (1, "hello", False)
    done = await memory.alice(
        "CompleteTurn",
        cpb.CompleteTurnRequest(
            request_id="t1", epoch=1, text="hi\x00!", finish_reason=cpb.FINISH_REASON_STOP
        ),
    )
    assert (done.reply.text, done.reply.finish_reason) == ("hi!", cpb.FINISH_REASON_STOP)
    again = await memory.alice("BeginTurn", begin())
    assert done.reply == again.reply
    with pytest.raises(AppError) as caught:
        await memory.alice("BeginTurn", begin(body_sha256=b"x" * 32))
    assert caught.value.reason == Reason.REQUEST_ID_REUSED


async def test_memory_grpc_a_turn_is_told_by_its_request_or_either_message_with_its_explanation(
    memory: Memory,
) -> None:
    begun = await memory.alice("BeginTurn", begin())
    bare = await memory.alice("GetTurn", cpb.GetTurnRequest(request_id="t1"))
    assert (bare.reply_id, bare.explanation, bare.HasField("time")) == ("", b"", False)
    done = await memory.alice(
        "CompleteTurn",
        cpb.CompleteTurnRequest(
            request_id="t1",
            epoch=1,
            text="hi",
            finish_reason=cpb.FINISH_REASON_STOP,
            explanation=b"\x00why\xff",
        ),
    )
    told = [
        await memory.alice("GetTurn", cpb.GetTurnRequest(request_id="t1")),
        await memory.alice("GetTurn", cpb.GetTurnRequest(message_id=begun.message.id)),
        await memory.alice("GetTurn", cpb.GetTurnRequest(message_id=done.reply.id)),
    ]
    assert told[0] == told[1] == told[2]
    assert told[0].explanation == b"\x00why\xff"
    assert (told[0].message_id, told[0].reply_id) == (begun.message.id, done.reply.id)
    assert told[0].time == done.reply.time
    for asked in ({"request_id": "t2"}, {"message_id": str(uuid.uuid4())}):
        with pytest.raises(AppError) as caught:
            await memory.alice("GetTurn", cpb.GetTurnRequest(**asked))
        assert caught.value.reason == Reason.NOT_FOUND
    with pytest.raises(AppError) as caught:
        await memory.alice("GetTurn", cpb.GetTurnRequest())
    assert caught.value.reason == Reason.INVALID_REQUEST


async def test_memory_grpc_turns_are_for_routing_only(memory: Memory) -> None:
    stub = cpb_grpc.ConversationServiceStub(memory.public)
    metadata = (("authorization", "Bearer acme/alice"),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.BeginTurn(begin(), metadata=metadata, timeout=30)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    listed = await mpb_grpc.MemoryServiceStub(memory.public).ListMemories(
        mpb.ListMemoriesRequest(), metadata=metadata, timeout=30
    )
    assert len(listed.memories) == 0


async def test_memory_grpc_memory_is_corrected_and_forgotten(memory: Memory) -> None:
    alice = memory.alice
    given = mpb.NewMemory(request_id="r", text="code 1", metadata={"a": "b"})
    stored = (await alice("Remember", mpb.RememberRequest(memory=given))).memory
    assert (stored.kind, stored.version, stored.speaker) == (mpb.MEMORY_KIND_FACT, 1, "user")
    updated = await alice(
        "UpdateMemory",
        mpb.UpdateMemoryRequest(
            request_id="u",
            memory=mpb.Memory(id=stored.id, text="code 2"),
            update_mask=FieldMask(paths=["text"]),
            expected_version=1,
        ),
    )
    assert (
        updated.memory.version,
        updated.memory.text,
        dict(updated.memory.metadata),
    ) == (2, "code 2", {"a": "b"})
    versions = await alice("ListMemoryVersions", mpb.ListMemoryVersionsRequest(memory_id=stored.id))
    assert [m.text for m in versions.versions] == ["code 2", "code 1"]
    await alice("ForgetMemory", mpb.ForgetMemoryRequest(memory_id=stored.id))
    with pytest.raises(AppError) as caught:
        await alice("GetMemory", mpb.GetMemoryRequest(memory_id=stored.id))
    assert caught.value.reason == Reason.NOT_FOUND


async def test_memory_grpc_recall_and_index_status(memory: Memory) -> None:
    batch = mpb.BatchRememberRequest(
        memories=[
            mpb.NewMemory(request_id="1", text="the locker code is 4711"),
            mpb.NewMemory(request_id="2", text="Rex is my dog"),
        ]
    )
    assert len((await memory.alice("BatchRemember", batch)).memories) == 2
    status = await memory.alice("GetIndexStatus", mpb.GetIndexStatusRequest())
    assert (status.memories, status.pending) == (2, 2)
    await memory.world.settle()
    status = await memory.alice("GetIndexStatus", mpb.GetIndexStatusRequest())
    assert (status.memories, status.pending) == (2, 0)
    asked = mpb.RecallRequest(query="what is my locker code?", limit=1)
    recalled = await memory.alice("Recall", asked)
    assert [hit.memory.text for hit in recalled.hits] == ["the locker code is 4711"]
    assert recalled.hits[0].scores.keyword == 1.0
    assert len((await memory.bob("Recall", asked)).hits) == 0


INVALID: list[tuple[str, Any]] = [
    ("AppendMessages", cpb.AppendMessagesRequest(conversation_id="c")),
    (
        "AppendMessages",
        cpb.AppendMessagesRequest(conversation_id="c", messages=[new("r", "a\x00b")]),
    ),
    ("GetConversation", cpb.GetConversationRequest(conversation_id="a\x00b")),
    ("ListConversations", cpb.ListConversationsRequest(metadata={"a\x00": "b"})),
    ("ListMemories", mpb.ListMemoriesRequest(filter={"metadata": {"a": "b\x00"}})),
    ("GetMemory", mpb.GetMemoryRequest(memory_id="no uuid")),
    ("BeginTurn", begin(parent_message_id="no uuid")),
    (
        "UpdateMemory",
        mpb.UpdateMemoryRequest(
            request_id="u",
            memory=mpb.Memory(id=str(uuid.uuid4())),
            update_mask=FieldMask(paths=["speaker"]),
        ),
    ),
    (
        "BatchRemember",
        mpb.BatchRememberRequest(
            memories=[mpb.NewMemory(request_id="1", text=text) for text in ("a", "b")]
        ),
    ),
    ("Recall", mpb.RecallRequest(query="q", recency_half_life={"seconds": -1})),
    ("ListMemories", mpb.ListMemoriesRequest(filter={"since": {"seconds": 1 << 60}})),
]


async def test_memory_grpc_refuses_what_is_not_valid(memory: Memory) -> None:
    for method, request in INVALID:
        with pytest.raises(AppError) as caught:
            await memory.alice(method, request)
        assert caught.value.reason == Reason.INVALID_REQUEST, method
        assert caught.value.violations
