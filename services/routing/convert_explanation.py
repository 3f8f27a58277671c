"""Explanations between routing's own types, memory's store and the wire."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from echomesh.memory.v1 import conversation_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2
from services.routing import domain
from services.routing.convert import (
    decision_to,
    duration_to,
    time_from,
    timestamp_to,
    usage_from,
    usage_to,
    used_to,
)

# What memory keeps of one; without its memories an explanation is far below it.
MAX_BYTES = 16_384


def explanation_to(why: domain.Explanation) -> routing_pb2.ExplainResponse:
    """Return an explanation as it goes on the wire and into the store."""
    return routing_pb2.ExplainResponse(
        decision=decision_to(why.decision),
        attempts=[
            routing_pb2.Attempt(
                model=attempt.model,
                error_reason=attempt.error_reason,
                elapsed_ms=attempt.elapsed_ms,
            )
            for attempt in why.attempts
        ],
        degraded=why.degraded,
        trace_id=why.trace_id,
        finish_reason=int(why.finish_reason),  # type: ignore[arg-type]
        memories=[used_to(memory) for memory in why.memories],
        used_memory_ids=why.used_memory_ids,
        usage=usage_to(why.usage),
        timings=routing_pb2.Timings(
            started=duration_to(why.timings.started_s),
            prepared=duration_to(why.timings.prepared_s),
            first_text=duration_to(why.timings.first_text_s),
            generated=duration_to(why.timings.generated_s),
        ),
        confidence=why.confidence,
    )


def response_to(turn: domain.StoredTurn, trace_url: str) -> routing_pb2.ExplainResponse:
    """Return what is known of a turn as the answer to `Explain`."""
    why = turn.explanation
    response = explanation_to(why) if why else routing_pb2.ExplainResponse()
    response.request_id = turn.request_id
    response.conversation_id = turn.conversation_id
    response.message_id = turn.message_id
    response.reply_id = turn.reply_id
    stamp = timestamp_to(turn.replied_at)
    if stamp is not None:
        response.time.CopyFrom(stamp)
    response.trace_url = trace_url
    return response


def packed(why: domain.Explanation) -> bytes:
    """Return an explanation for the store: without its memories if it is too long with them."""
    message = explanation_to(why)
    if message.ByteSize() > MAX_BYTES:
        message.ClearField("memories")
    return message.SerializeToString()


def stored_turn_from(turn: conversation_pb2.GetTurnResponse) -> domain.StoredTurn:
    """Return a turn as memory has it."""
    kept = routing_pb2.ExplainResponse.FromString(turn.explanation)
    return domain.StoredTurn(
        request_id=turn.request_id,
        conversation_id=turn.conversation_id,
        message_id=turn.message_id,
        reply_id=turn.reply_id,
        replied_at=time_from(turn, "time"),
        explanation=_explanation(kept) if turn.explanation else None,
    )


def _explanation(kept: routing_pb2.ExplainResponse) -> domain.Explanation:
    times = kept.timings
    return domain.Explanation(
        decision=domain.Decision(
            domain.Tier(kept.decision.tier),
            domain.QueryType(kept.decision.query_type),
            kept.decision.model,
            kept.decision.reason,
        ),
        attempts=[domain.Attempt(a.model, a.error_reason, a.elapsed_ms) for a in kept.attempts],
        degraded=tuple(kept.degraded),
        trace_id=kept.trace_id,
        memories=[_memory(memory) for memory in kept.memories],
        used_memory_ids=tuple(kept.used_memory_ids),
        finish_reason=domain.FinishReason(kept.finish_reason),
        usage=usage_from(kept.usage),
        timings=domain.Timings(
            _seconds(times, "started"),
            _seconds(times, "prepared"),
            _seconds(times, "first_text"),
            _seconds(times, "generated"),
        ),
        confidence=kept.confidence if kept.HasField("confidence") else None,
    )


def _memory(memory: chat_pb2.UsedMemory) -> domain.Recollection:
    return domain.Recollection(
        id=memory.memory_id,
        text=memory.text,
        score=memory.score,
        conversation_id=memory.conversation_id,
        speaker=memory.speaker,
        time=time_from(memory, "time"),
    )


def _seconds(times: routing_pb2.Timings, field: str) -> float | None:
    if not times.HasField(field):  # type: ignore[arg-type]
        return None
    duration: Duration = getattr(times, field)
    return duration.ToTimedelta().total_seconds()
