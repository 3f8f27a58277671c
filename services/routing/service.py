"""Servicers: from proto to a turn and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc, routing_pb2, routing_pb2_grpc
from services.routing.convert import endpoints_to, frame_to, turn_from
from services.routing.convert_explanation import response_to
from services.routing.domain import StoredTurn
from services.routing.explain import Explanations
from services.routing.observing import ChatObserver
from services.routing.pipeline import Parts, Turn
from services.routing.streams import TurnKey
from services.routing.turn import FrameSequence
from services.runtime.deadline import remaining_s
from services.runtime.errors import AppError, Reason, invalid
from services.runtime.identity import current_identity
from services.runtime.interceptor import trace_id


def _key(request_id: str) -> TurnKey:
    identity = current_identity()
    return identity.tenant_id, identity.user_id, request_id


def _uuid(text: str) -> str:
    """Return a message's id; raises INVALID_REQUEST for what cannot be one."""
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid("message_id", "must be a UUID") from None


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """ChatService: a message in, frames out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Chat(  # noqa: N802 - gRPC's name
        self, request: chat_pb2.ChatRequest, context: Any
    ) -> AsyncIterator[chat_pb2.ChatResponse]:
        """Run the turn and stream its frames."""
        key, asked = _key(request.request_id), turn_from(request)
        observer = ChatObserver(asked, current_identity())
        turn = Turn(self._parts, asked, key, remaining_s=remaining_s(), trace_id=trace_id())
        turn.require_place()
        sequence = FrameSequence()
        frames = self._parts.table.run(key, turn.run, detach=request.detach)
        async with aclosing(frames):
            async for frame in frames:
                observer.saw(frame)
                yield frame_to(frame, sequence.number(frame))


class RoutingServicer(routing_pb2_grpc.RoutingServiceServicer):
    """RoutingService: why a reply is as it is. `traces_url` is where traces are looked at."""

    def __init__(self, explanations: Explanations, traces_url: str = "") -> None:
        self._explanations = explanations
        self._traces_url = traces_url.rstrip("/")

    async def Explain(  # noqa: N802 - gRPC's name
        self, request: routing_pb2.ExplainRequest, context: Any
    ) -> routing_pb2.ExplainResponse:
        """Return all that is known of a turn's making."""
        if request.message_id:
            turn = await self._explanations.of_message(_uuid(request.message_id))
        elif request.request_id:
            turn = await self._explanations.of_request(_key(request.request_id))
        else:
            raise invalid("request_id", "give a request_id or a message_id")
        return response_to(turn, self._url(turn))

    def _url(self, turn: StoredTurn) -> str:
        """Return where the turn's trace is; empty where nobody said."""
        if not self._traces_url or turn.explanation is None:
            return ""
        return f"{self._traces_url}/trace/{turn.explanation.trace_id}"

    async def SubmitFeedback(  # noqa: N802 - gRPC's name
        self, request: routing_pb2.SubmitFeedbackRequest, context: Any
    ) -> routing_pb2.SubmitFeedbackResponse:
        """Refuse with the feature's name: nothing learns from feedback yet."""
        raise AppError(
            Reason.NOT_SUPPORTED,
            "feedback is not learned from yet",
            metadata={"feature": "feedback"},
        )


class MeshServicer(routing_pb2_grpc.MeshServiceServicer):
    """MeshService: where each client-facing service listens."""

    def __init__(self, endpoints: Sequence[tuple[str, str, bool]], version: str) -> None:
        self._response = endpoints_to(endpoints, version)

    async def GetEndpoints(  # noqa: N802 - gRPC's name
        self, request: routing_pb2.GetEndpointsRequest, context: Any
    ) -> routing_pb2.GetEndpointsResponse:
        """Return the endpoints as set."""
        return self._response
