"""The part of the client that chats."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import grpc

from echomesh import _session
from echomesh._calls import Calls
from echomesh._errors import EchomeshError
from echomesh._frames import Final, Frame, Restart, Text, ToolCall, read
from echomesh._session import Attempts, Deadline
from echomesh._trace import ClientSpan, client_span
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2

_CHAT = "echomesh.routing.v1.ChatService/Chat"
_CHAT_TIMEOUT_S = 60.0
# The server closes a stream right after its final frame.
_END_S = 1.0
_TIERS = {
    "": chat_pb2.TIER_UNSPECIFIED,
    "instant": chat_pb2.TIER_INSTANT,
    "fast": chat_pb2.TIER_FAST,
    "standard": chat_pb2.TIER_STANDARD,
}


class Chatting(Calls):
    """Messages and their replies."""

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
        message_key: str = "",
        instructions: str = "",
        history: Sequence[models_pb2.ChatMessage] | None = None,
        tools: Sequence[models_pb2.Tool] = (),
        tool_choice: str = "",
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

        `instructions` are the application's to the model (a system prompt). `history`, even an
        empty one, is shown to the model in place of what is stored, and stored nowhere. A message
        with a `message_key` that its conversation has already is answered anew and not stored
        twice. `tool_choice` is "" or "auto", "none", "required" or a tool's name.
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
            message_key=message_key,
            instructions=instructions,
            history=None if history is None else chat_pb2.History(messages=history),
            tools=tools,
            tool_choice=tool_choice,
            tool_messages=tool_messages,
            response_format=response_format,
            sampling=sampling,
            metadata=metadata,
        )
        async with aclosing(self._chat_frames(request, Deadline(timeout_s))) as frames:
            async for frame in frames:
                yield frame

    async def reply(self, /, text: str, **options: Any) -> tuple[str, Final]:
        """Send a message and wait for the whole reply; the options are those of `chat`."""
        parts: list[str] = []
        async with aclosing(self.chat(text, **options)) as frames:
            async for frame in frames:
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
        """The frames of all attempts together, which are one call and one span."""
        with client_span(_CHAT) as span:
            attempts = Attempts(_session.chat_method(), deadline)
            had_output = False
            while True:
                lost = EchomeshError(grpc.StatusCode.UNAVAILABLE, "the stream broke off")
                attempt = self._attempt(request, deadline, attempts, span)
                try:
                    async with aclosing(attempt) as frames:
                        async for frame in frames:
                            had_output = _has_output(had_output, frame)
                            yield frame
                            if isinstance(frame, Final):
                                return
                except _session.FAILURES as error:
                    lost = _session.failure(error)
                await attempts.after(lost, self._transport, self._tokens)
                span.tried_again(lost)
                if had_output:
                    had_output = False
                    yield Restart("reconnected")

    async def _attempt(
        self,
        request: chat_pb2.ChatRequest,
        deadline: Deadline,
        attempts: Attempts,
        span: ClientSpan,
    ) -> AsyncGenerator[Frame, None]:
        """The frames of one attempt; its stream has ended when the final one comes."""
        stream = _session.stream(self._transport, self._tokens, request, deadline, attempts, span)
        async with aclosing(stream) as responses:
            async for response in responses:
                frame = read(response)
                if isinstance(frame, Final):
                    await _let_end(responses)
                    span.answered()
                if frame is not None:
                    yield frame


def _has_output(before: bool, frame: Frame) -> bool:
    """Whether the client has text or tool calls that a new attempt would make void."""
    return isinstance(frame, Text | ToolCall) or (before and not isinstance(frame, Restart))


async def _let_end(responses: AsyncIterator[Any]) -> None:
    """Let a stream end by itself after its final frame: cancelled, it would count as that."""
    with suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout(_END_S):
            async for _ in responses:
                pass
