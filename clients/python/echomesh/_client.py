"""The asynchronous client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from types import TracebackType
from typing import Any

import grpc

from echomesh import _session, _types
from echomesh._errors import EchomeshError, from_rpc_error
from echomesh._frames import Final, Frame, Restart, Text, ToolCall, read
from echomesh._session import Attempts, Deadline, TokenSource, Transport
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.memory.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
)
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2, routing_pb2_grpc

_CALL_TIMEOUT_S = 10.0
_CHAT_TIMEOUT_S = 60.0
# The server closes a stream right after its final frame.
_END_S = 1.0
# One call takes at most 500 messages and 4 MiB; half of that is stored well within its time.
_PART_MESSAGES = 500
_PART_BYTES = 2 * 2**20
_TIERS = {
    "": chat_pb2.TIER_UNSPECIFIED,
    "instant": chat_pb2.TIER_INSTANT,
    "fast": chat_pb2.TIER_FAST,
    "standard": chat_pb2.TIER_STANDARD,
}


class Client:
    """A user's connection to a mesh.

    `address` is the host:port of any routing replica; the other services are found from it.
    TLS is used unless the address is loopback. Timeouts are in seconds, for all attempts of a
    call together. Methods raise EchomeshError.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7400",
        *,
        api_key: str,
        root_certificates: bytes | None = None,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> None:
        self._transport = Transport(address, root_certificates)
        self._owns_transport = True
        self._timeout_s = timeout_s
        self._tokens = TokenSource(self._transport, self._exchange_key(api_key))

    def as_user(self, external_user_id: str) -> Client:
        """The same mesh as one of the application's end users, who is made on first use.

        The key must have the role `app`. Closing the result closes nothing.
        """
        other = object.__new__(Client)
        other._transport = self._transport
        other._owns_transport = False
        other._timeout_s = self._timeout_s

        async def sign_in(deadline: Deadline) -> auth_pb2.Tokens:
            request = auth_pb2.ExchangeTokenRequest(external_user_id=external_user_id)
            stub = auth_pb2_grpc.AuthServiceStub
            answer = await _session.unary(
                self._transport, self._tokens, stub, "ExchangeToken", request, deadline
            )
            return answer.tokens  # type: ignore[no-any-return]

        other._tokens = TokenSource(self._transport, sign_in)
        return other

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_transport:
            await self._transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def chat(
        self,
        text: str,
        *,
        conversation_id: str = "default",
        tier: str = "",
        model: str = "",
        speaker: str = "",
        persona: str = "",
        store: bool = True,
        recall: bool = True,
        detach: bool = False,
        parent_message_id: str = "",
        tools: Sequence[models_pb2.Tool] = (),
        tool_messages: Sequence[models_pb2.ChatMessage] = (),
        response_format: models_pb2.ResponseFormat | None = None,
        sampling: models_pb2.Sampling | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        timeout_s: float = _CHAT_TIMEOUT_S,
    ) -> AsyncGenerator[Frame, None]:
        """Send a message and yield the frames of the reply; the last one is Final.

        If a replica of the mesh is lost the same request is tried again: a Restart frame then
        says that the text so far is void. Leaving the iteration early cancels the reply,
        unless `detach`. `tier` is "", "instant", "fast" or "standard".
        """
        if tier not in _TIERS:
            raise ValueError(f"tier must be one of {', '.join(t for t in _TIERS if t)}")
        request = chat_pb2.ChatRequest(
            request_id=request_id or str(uuid.uuid4()),
            conversation_id=conversation_id,
            text=text,
            tier=_TIERS[tier],
            model=model,
            speaker=speaker,
            persona=persona,
            store=store,
            recall=recall,
            detach=detach,
            parent_message_id=parent_message_id,
            tools=tools,
            tool_messages=tool_messages,
            response_format=response_format,
            sampling=sampling,
            metadata=metadata,
        )
        async with aclosing(self._chat_frames(request, Deadline(timeout_s))) as frames:
            async for frame in frames:
                yield frame

    async def reply(self, text: str, **options: Any) -> tuple[str, Final]:
        """Send a message and wait for the whole reply; the options are those of `chat`."""
        parts: list[str] = []
        async for frame in self.chat(text, **options):
            if isinstance(frame, Restart):
                parts.clear()
            elif isinstance(frame, Text):
                parts.append(frame.text)
            elif isinstance(frame, Final):
                return "".join(parts), frame
        raise EchomeshError(grpc.StatusCode.UNAVAILABLE, "the reply ended without a final frame")

    async def _chat_frames(
        self, request: chat_pb2.ChatRequest, deadline: Deadline
    ) -> AsyncGenerator[Frame, None]:
        attempts = Attempts(_session.chat_method(), deadline)
        had_output = False
        while True:
            try:
                attempt = _session.stream(
                    self._transport, self._tokens, request, deadline, attempts
                )
                async with aclosing(attempt) as responses:
                    async for response in responses:
                        frame = read(response)
                        if frame is None:
                            continue
                        had_output = _has_output(had_output, frame)
                        if isinstance(frame, Final):
                            await _let_end(responses)
                            yield frame
                            return
                        yield frame
                lost = EchomeshError(grpc.StatusCode.UNAVAILABLE, "the stream broke off")
            except grpc.aio.AioRpcError as error:
                lost = from_rpc_error(error)
            await attempts.after(lost, self._transport, self._tokens)
            if had_output:
                had_output = False
                yield Restart("reconnected")

    async def remember(
        self,
        text: str,
        *,
        speaker: str = "",
        time: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> _types.Memory:
        """Store something about the user; acknowledged only once it is durable."""
        memory = memory_pb2.NewMemory(
            request_id=request_id or str(uuid.uuid4()),
            text=text,
            speaker=speaker,
            time=_types.timestamp(time),
            metadata=metadata,
        )
        answer = await self._memory("Remember", memory_pb2.RememberRequest(memory=memory))
        return _types.memory(answer.memory)

    async def recall(
        self,
        query: str,
        *,
        limit: int = 10,
        asker: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        conversation_id: str = "",
        speaker: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> _types.RecallResult:
        """What is relevant to a query, best first; `asker` is the name behind "I" and "my"."""
        filter_ = memory_pb2.MemoryFilter(
            since=_types.timestamp(since),
            until=_types.timestamp(until),
            conversation_id=conversation_id,
            speaker=speaker,
            metadata=metadata,
        )
        request = memory_pb2.RecallRequest(query=query, limit=limit, asker=asker, filter=filter_)
        return _types.recall_result(await self._memory("Recall", request))

    async def correct(self, memory_id: str, text: str, *, request_id: str = "") -> _types.Memory:
        """Replace the text of a memory; the earlier version stays in its history."""
        request = memory_pb2.UpdateMemoryRequest(
            request_id=request_id or str(uuid.uuid4()),
            memory=memory_pb2.Memory(id=memory_id, text=text),
        )
        request.update_mask.paths.append("text")
        return _types.memory((await self._memory("UpdateMemory", request)).memory)

    async def forget(self, memory_id: str) -> None:
        """Erase a memory for good."""
        await self._memory("ForgetMemory", memory_pb2.ForgetMemoryRequest(memory_id=memory_id))

    async def memories(self, *, page_size: int = 100) -> AsyncIterator[_types.Memory]:
        """All memories, newest first; pages are fetched as they are needed."""
        token = ""
        while True:
            request = memory_pb2.ListMemoriesRequest(page_size=page_size, page_token=token)
            answer = await self._memory("ListMemories", request)
            for item in answer.memories:
                yield _types.memory(item)
            token = answer.next_page_token
            if not token:
                return

    async def index_status(self) -> tuple[int, int]:
        """How many memories there are, and how many of them are not indexed yet."""
        answer = await self._memory("GetIndexStatus", memory_pb2.GetIndexStatusRequest())
        return answer.memories, answer.pending

    async def import_messages(
        self, conversation_id: str, messages: Sequence[_types.NewMessage]
    ) -> tuple[int, int]:
        """Store earlier messages; returns (stored, duplicates).

        Many or long ones are sent in several calls, each of which is stored whole or not at all.
        """
        stored = duplicates = 0
        for part in _parts([_types.new_message(m) for m in messages]):
            request = conversation_pb2.AppendMessagesRequest(
                conversation_id=conversation_id, messages=part
            )
            answer = await self._conversation("AppendMessages", request)
            stored += answer.stored
            duplicates += answer.duplicates
        return stored, duplicates

    async def conversations(self, *, page_size: int = 50) -> AsyncIterator[_types.Conversation]:
        """All conversations, newest first."""
        token = ""
        while True:
            request = conversation_pb2.ListConversationsRequest(
                page_size=page_size, page_token=token
            )
            answer = await self._conversation("ListConversations", request)
            for item in answer.conversations:
                yield _types.conversation(item)
            token = answer.next_page_token
            if not token:
                return

    async def messages(
        self, conversation_id: str, *, page_size: int = 100
    ) -> AsyncIterator[_types.Message]:
        """The messages of a conversation in order."""
        token = ""
        while True:
            request = conversation_pb2.ListMessagesRequest(
                conversation_id=conversation_id, page_size=page_size, page_token=token
            )
            answer = await self._conversation("ListMessages", request)
            for item in answer.messages:
                yield _types.message(item)
            token = answer.next_page_token
            if not token:
                return

    async def delete_conversation(self, conversation_id: str) -> int:
        """Delete a conversation with its memories; returns how many messages it had."""
        request = conversation_pb2.DeleteConversationRequest(conversation_id=conversation_id)
        answer = await self._conversation("DeleteConversation", request)
        return int(answer.deleted_messages)

    async def endpoints(self) -> dict[str, str]:
        """Where each client-facing gRPC service listens."""
        answer = await _session.unary(
            self._transport,
            None,
            routing_pb2_grpc.MeshServiceStub,
            "GetEndpoints",
            routing_pb2.GetEndpointsRequest(),
            Deadline(self._timeout_s),
        )
        return {e.service: e.address for e in answer.endpoints}

    async def _memory(self, method: str, request: Any) -> Any:
        return await self._unary(memory_pb2_grpc.MemoryServiceStub, method, request)

    async def _conversation(self, method: str, request: Any) -> Any:
        return await self._unary(conversation_pb2_grpc.ConversationServiceStub, method, request)

    async def _unary(self, stub: type[Any], method: str, request: Any) -> Any:
        deadline = Deadline(self._timeout_s)
        return await _session.unary(self._transport, self._tokens, stub, method, request, deadline)

    def _exchange_key(self, api_key: str) -> Any:
        async def sign_in(deadline: Deadline) -> auth_pb2.Tokens:
            request = auth_pb2.ExchangeApiKeyRequest(api_key=api_key)
            stub = auth_pb2_grpc.AuthServiceStub
            answer = await _session.unary(
                self._transport, None, stub, "ExchangeApiKey", request, deadline
            )
            return answer.tokens  # type: ignore[no-any-return]

        return sign_in


def _parts(
    messages: Sequence[conversation_pb2.NewMessage],
) -> Iterator[list[conversation_pb2.NewMessage]]:
    """Split messages, in order, into what one call may carry."""
    part: list[conversation_pb2.NewMessage] = []
    size_bytes = 0
    for message in messages:
        message_bytes = message.ByteSize()
        if len(part) == _PART_MESSAGES or (part and size_bytes + message_bytes > _PART_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append(message)
        size_bytes += message_bytes
    if part:
        yield part


def _has_output(before: bool, frame: Frame) -> bool:
    """Whether the client has text or tool calls that a new attempt would make void."""
    return isinstance(frame, Text | ToolCall) or (before and not isinstance(frame, Restart))


async def _let_end(responses: AsyncIterator[Any]) -> None:
    """Let a stream end by itself after its final frame: cancelled, it would count as that."""
    with suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout(_END_S):
            async for _ in responses:
                pass
