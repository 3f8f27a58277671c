"""The part of the client that asks why a reply is as it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration

from echomesh._calls import Calls
from echomesh._frames import Decision, UsedMemory, decision, finish_reason, used_memory
from echomesh.routing.v1 import routing_pb2, routing_pb2_grpc


@dataclass(frozen=True)
class Attempt:
    """One model that was tried; `error_reason` is empty if it answered."""

    model: str
    error_reason: str
    elapsed_s: float


@dataclass(frozen=True)
class Timings:
    """Seconds from the start of the call; None for what did not come to be.

    `started`: the turn had its place. `prepared`: storing and recalling were done or given up.
    `first_text` and `generated`: the first and the last text of the kept reply.
    """

    started_s: float | None
    prepared_s: float | None
    first_text_s: float | None
    generated_s: float | None


@dataclass(frozen=True)
class Explanation:
    """How a reply came to be. Ids and `time` are empty for what was not stored.

    `memories` were laid before the model, best first, and the reply rests on those of
    `used_memory_ids`; the text of one that was forgotten since is empty. `trace_url` is empty
    unless the mesh knows where its traces are looked at.
    """

    request_id: str
    conversation_id: str
    message_id: str
    reply_id: str
    time: datetime | None
    decision: Decision
    attempts: tuple[Attempt, ...]
    degraded: tuple[str, ...]
    finish_reason: str
    memories: tuple[UsedMemory, ...]
    used_memory_ids: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    timings: Timings
    confidence: float | None
    trace_id: str
    trace_url: str


class Explaining(Calls):
    """Why replies are as they are."""

    async def explain(self, *, message_id: str = "", request_id: str = "") -> Explanation:
        """Return how a reply came to be: by its own id, its question's, or the request's."""
        answer = await self._unary(
            routing_pb2_grpc.RoutingServiceStub,
            "Explain",
            routing_pb2.ExplainRequest(message_id=message_id, request_id=request_id),
        )
        return _explanation(answer)


def _explanation(m: routing_pb2.ExplainResponse) -> Explanation:
    return Explanation(
        request_id=m.request_id,
        conversation_id=m.conversation_id,
        message_id=m.message_id,
        reply_id=m.reply_id,
        time=m.time.ToDatetime(tzinfo=UTC) if m.HasField("time") else None,
        decision=decision(m.decision),
        attempts=tuple(Attempt(a.model, a.error_reason, a.elapsed_ms / 1000) for a in m.attempts),
        degraded=tuple(m.degraded),
        finish_reason=finish_reason(m.finish_reason),
        memories=tuple(used_memory(u) for u in m.memories),
        used_memory_ids=tuple(m.used_memory_ids),
        prompt_tokens=m.usage.prompt_tokens,
        completion_tokens=m.usage.completion_tokens,
        timings=Timings(
            *(_seconds(m.timings, each) for each in ("started", "prepared")),
            *(_seconds(m.timings, each) for each in ("first_text", "generated")),
        ),
        confidence=m.confidence if m.HasField("confidence") else None,
        trace_id=m.trace_id,
        trace_url=m.trace_url,
    )


def _seconds(timings: Any, field: str) -> float | None:
    if not timings.HasField(field):
        return None
    duration: Duration = getattr(timings, field)
    return duration.ToTimedelta().total_seconds()
