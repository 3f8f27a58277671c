"""memory and models over gRPC, behind routing's ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from itertools import zip_longest
from typing import Any

import grpc

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.memory.v1.conversation_pb2_grpc import ConversationServiceStub
from echomesh.memory.v1.memory_pb2_grpc import MemoryServiceStub
from echomesh.models.v1 import models_pb2
from echomesh.models.v1.models_pb2_grpc import ModelServiceStub
from services.routing import convert
from services.routing.convert_explanation import packed, stored_turn_from
from services.routing.domain import (
    BegunTurn,
    Explanation,
    Finish,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Model,
    PastMessage,
    Recalled,
    StoredTurn,
    TurnRequest,
)
from services.routing.remembering import NOT_SENT
from services.runtime.errors import AppError, Reason
from services.runtime.identity import acting_as, current_identity

# Recall takes at most this much of a query; a longer message is searched by its start.
MAX_QUERY_BYTES = 8192
# A call ends at once after its last message, unless the service has just frozen.
_END_S = 0.5
# What gRPC says when a request never left, because no connection could be made.
_NO_CONNECTION = "failed to connect"


class GrpcMemory:
    """`MemoryPort` over memory's two services."""

    def __init__(self, channel: Any) -> None:
        self._conversations = ConversationServiceStub(channel)
        self._memories = MemoryServiceStub(channel)

    async def begin(self, turn: TurnRequest, *, recent_limit: int) -> BegunTurn:
        """Store the user's message and become the turn's runner."""
        request = conversation_pb2.BeginTurnRequest(
            request_id=turn.request_id,
            body_sha256=turn.body_sha256,
            conversation_id=turn.conversation_id,
            text=turn.text,
            speaker=turn.speaker,
            metadata=turn.metadata,
            parent_message_id=turn.parent_message_id,
            recent_limit=recent_limit,
            message_key=turn.message_key,
        )
        with _for_the_user():
            begun = await self._conversations.BeginTurn(request)
        return BegunTurn(
            message=convert.message_from(begun.message),
            epoch=begun.epoch,
            reply=convert.message_from(begun.reply) if begun.HasField("reply") else None,
            recent=tuple(convert.message_from(message) for message in begun.recent),
        )

    async def complete(
        self,
        turn: TurnRequest,
        *,
        epoch: int,
        text: str,
        speaker: str,
        finish_reason: FinishReason,
        model: str,
        metadata: Mapping[str, str],
        explanation: Explanation,
    ) -> str:
        """Store the reply and return its id."""
        request = conversation_pb2.CompleteTurnRequest(
            request_id=turn.request_id,
            epoch=epoch,
            text=text,
            speaker=speaker,
            finish_reason=int(finish_reason),  # type: ignore[arg-type]
            model=model,
            metadata=metadata,
            explanation=packed(explanation),
        )
        with _for_the_user():
            response = await self._conversations.CompleteTurn(request)
        return str(response.reply.id)

    async def turn(self, *, request_id: str = "", message_id: str = "") -> StoredTurn:
        """Return a turn by its request or by one of its messages."""
        request = conversation_pb2.GetTurnRequest(request_id=request_id, message_id=message_id)
        return stored_turn_from(await self._conversations.GetTurn(request))

    async def texts(self, memory_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the texts of memories by id, asked for at once; forgotten ones are left out."""
        found = await asyncio.gather(*(self._text(memory_id) for memory_id in memory_ids))
        return {key: text for key, text in zip(memory_ids, found, strict=True) if text is not None}

    async def _text(self, memory_id: str) -> str | None:
        try:
            request = memory_pb2.GetMemoryRequest(memory_id=memory_id)
            return str((await self._memories.GetMemory(request)).memory.text)
        except AppError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise

    async def recent(self, conversation_id: str, limit: int) -> tuple[PastMessage, ...]:
        """Return the newest messages of a conversation, oldest first; none if there is none."""
        request = conversation_pb2.ListMessagesRequest(
            conversation_id=conversation_id, page_size=limit, descending=True
        )
        try:
            page = await self._conversations.ListMessages(request)
        except AppError as error:
            if error.reason is Reason.NOT_FOUND:
                return ()
            raise
        return tuple(convert.message_from(message) for message in reversed(page.messages))

    async def recall(self, turn: TurnRequest, *, limit: int, keyword_only: bool) -> Recalled:
        """Return what is relevant to the turn's text, best first."""
        request = memory_pb2.RecallRequest(
            query=turn.text.encode()[:MAX_QUERY_BYTES].decode(errors="ignore"),
            limit=limit,
            asker=turn.speaker,
            keyword_only=keyword_only,
        )
        found = await self._memories.Recall(request)
        return Recalled(
            hits=tuple(convert.hit_from(hit) for hit in found.hits),
            degraded=dict(zip_longest(found.degraded, found.degraded_reasons, fillvalue="")),
        )


class GrpcModels:
    """`ModelsPort` over the models service."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._stub = ModelServiceStub(channel)

    @property
    def connected(self) -> bool:
        """Whether the service is reached now; an idle connection begins to be made."""
        state = self._channel.get_state(try_to_connect=True)
        return bool(state is grpc.ChannelConnectivity.READY)

    async def close(self) -> None:
        """Close the connection, unless others share it."""
        await self._channel.close()

    async def list_models(self) -> Sequence[Model]:
        """Return every model, in order of preference."""
        response = await self._stub.ListModels(models_pb2.ListModelsRequest())
        return [convert.model_from(model) for model in response.models]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Stream a reply; closing the iterator cancels the call."""
        call: Any = self._stub.Generate(convert.generate_request(request))
        async with aclosing(call) as responses:
            events = aiter(responses)
            async for response in events:
                event = convert.event_from(response)
                if isinstance(event, Finish):
                    await _let_end(events)
                if event is not None:
                    yield event


async def _let_end(events: AsyncIterator[Any]) -> None:
    """Read a call to its end: one left before would count as cancelled.

    The reply is whole already, so what breaks now takes nothing from it.
    """
    with suppress(AppError, TimeoutError):
        async with asyncio.timeout(_END_S):
            async for _ in events:
                pass


@contextmanager
def _for_the_user() -> Iterator[None]:
    """Write for the calling user, whose token may have expired since: routing vouches for them.

    Errors of requests that never left this process are marked: nothing was written for sure.
    """
    try:
        with acting_as(current_identity()):
            yield
    except AppError as error:
        cause = error.__cause__
        if not isinstance(cause, grpc.aio.AioRpcError):
            raise
        if _NO_CONNECTION not in (cause.details() or "").lower():
            raise
        raise AppError(
            error.reason,
            error.message,
            metadata={**error.metadata, NOT_SENT: "true"},
            retry_after_s=error.retry_after_s,
        ) from cause
