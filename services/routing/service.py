"""Servicers: from proto to a turn and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc, routing_pb2, routing_pb2_grpc
from services.routing.convert import endpoints_to, explanation_to, frame_to, turn_from
from services.routing.domain import Final
from services.routing.explain import Explanations
from services.routing.pipeline import Parts, Turn
from services.routing.streams import TurnKey
from services.routing.turn import FrameSequence
from services.runtime.deadline import remaining_s
from services.runtime.errors import AppError, Reason
from services.runtime.identity import current_identity
from services.runtime.interceptor import trace_id
from services.runtime.metrics import counter, histogram

_REPLIES = counter("echomesh_replies_total", "Replies by model and finish.", ("model", "finish"))
_FIRST_TEXT = histogram(
    "echomesh_first_text_seconds", "Time to the first text of the kept reply.", ("tier", "model")
)


def _key(request_id: str) -> TurnKey:
    identity = current_identity()
    return identity.tenant_id, identity.user_id, request_id


def _count(final: Final) -> None:
    """Record a finished reply: extractive and model answers are told apart by their model."""
    _REPLIES.labels(final.model, final.finish_reason.name).inc()
    if final.first_text_s is not None:
        _FIRST_TEXT.labels(final.tier.name, final.model).observe(final.first_text_s)


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """ChatService: a message in, frames out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Chat(  # noqa: N802 - gRPC's name
        self, request: chat_pb2.ChatRequest, context: Any
    ) -> AsyncIterator[chat_pb2.ChatResponse]:
        """Run the turn and stream its frames."""
        key = _key(request.request_id)
        turn = Turn(
            self._parts,
            turn_from(request),
            key,
            remaining_s=remaining_s(),
            trace_id=trace_id(),
        )
        turn.require_place()
        sequence = FrameSequence()
        frames = self._parts.table.run(key, turn.run, detach=request.detach)
        async with aclosing(frames):
            async for frame in frames:
                if isinstance(frame, Final):
                    _count(frame)
                yield frame_to(frame, sequence.number(frame))


class RoutingServicer(routing_pb2_grpc.RoutingServiceServicer):
    """RoutingService: why a reply came from where it came from."""

    def __init__(self, explanations: Explanations) -> None:
        self._explanations = explanations

    async def Explain(  # noqa: N802 - gRPC's name
        self, request: routing_pb2.ExplainRequest, context: Any
    ) -> routing_pb2.ExplainResponse:
        """Return the decision and attempts of one of the last turns."""
        return explanation_to(self._explanations.get(_key(request.request_id)))

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
