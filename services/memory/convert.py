"""Messages of the contract to values of the domain and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

from echomesh.common.v1 import errors_pb2
from echomesh.memory.v1 import conversation_pb2 as cpb
from echomesh.memory.v1 import memory_pb2 as mpb
from services.memory.model import Conversation, Memory, Message, Owner, Turn
from services.memory.recall import Kind, MemoryFilter, Role
from services.memory.recaller import Hit, Recalled
from services.runtime.errors import invalid
from services.runtime.identity import current_identity

_ROLES: Mapping[cpb.MessageRole.ValueType, Role] = {
    cpb.MESSAGE_ROLE_USER: "user",
    cpb.MESSAGE_ROLE_ASSISTANT: "assistant",
}
_ROLE_NUMBERS = {role: number for number, role in _ROLES.items()}
_KINDS: Mapping[mpb.MemoryKind.ValueType, Kind] = {
    mpb.MEMORY_KIND_EPISODIC: "episodic",
    mpb.MEMORY_KIND_FACT: "fact",
    mpb.MEMORY_KIND_PREFERENCE: "preference",
    mpb.MEMORY_KIND_SUMMARY: "summary",
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_FINISH_PREFIX = "FINISH_REASON_"
DEFAULT_HALF_LIFE = timedelta(days=30)
"""How fast recency fades where the caller does not say."""


def owner() -> Owner:
    """Return whose data the running call is about."""
    identity = current_identity()
    return Owner(identity.tenant_id, identity.user_id)


def check_text(request: ProtoMessage, path: str = "") -> None:
    """Refuse the NUL character anywhere in a request: Postgres cannot store it."""
    for field, value in request.ListFields():
        name = f"{path}{field.name}"
        if field.type == field.TYPE_STRING:
            if _has_nul(value):
                raise invalid(name, "must not contain the NUL character")
        elif field.type == field.TYPE_MESSAGE:
            for part in _messages(value):
                check_text(part, f"{name}.")


def _has_nul(value: Any) -> bool:
    return "\x00" in value if isinstance(value, str) else any("\x00" in text for text in value)


def _messages(value: Any) -> list[ProtoMessage]:
    if isinstance(value, ProtoMessage):
        return [value]
    parts = [value[key] for key in value] if hasattr(value, "items") else list(value)
    texts = [key for key in value if isinstance(key, str)] if hasattr(value, "items") else []
    if any("\x00" in text for text in [*texts, *(p for p in parts if isinstance(p, str))]):
        raise invalid("metadata", "must not contain the NUL character")
    return [part for part in parts if isinstance(part, ProtoMessage)]


def role(number: cpb.MessageRole.ValueType) -> Role:
    """Return the role of a validated enum value."""
    return _ROLES[number]


def kind(number: mpb.MemoryKind.ValueType, default: Kind) -> Kind:
    """Return the kind of an enum value; unset means ``default``."""
    return _KINDS.get(number, default)


def uuid(text: str, field: str) -> UUID:
    """Return the id in ``text`` or refuse the request's ``field``."""
    try:
        return UUID(text)
    except ValueError as error:
        raise invalid(field, "must be a UUID") from error


def time(message: ProtoMessage, field: str, default: datetime) -> datetime:
    """Return a Timestamp field as UTC, ``default`` where it is unset."""
    return optional_time(message, field) or default


def optional_time(message: ProtoMessage, field: str) -> datetime | None:
    """Return a Timestamp field as UTC, None where it is unset."""
    return _datetime(getattr(message, field), field) if message.HasField(field) else None


def _datetime(value: Timestamp, field: str) -> datetime:
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise invalid(field, "must be a time between the years 1 and 9999") from error


def half_life(request: mpb.RecallRequest) -> timedelta:
    """Return a recall's half-life; it must be above zero."""
    if not request.HasField("recency_half_life"):
        return DEFAULT_HALF_LIFE
    value: Duration = request.recency_half_life
    try:
        span = value.ToTimedelta()
    except OverflowError as error:
        raise invalid("recency_half_life", "must be at most a million years") from error
    if span <= timedelta(0):
        raise invalid("recency_half_life", "must be above zero")
    return span


def memory_filter(value: mpb.MemoryFilter) -> MemoryFilter:
    """Return a filter; unset fields do not narrow."""
    return MemoryFilter(
        since=optional_time(value, "since"),
        until=optional_time(value, "until"),
        conversation_id=value.conversation_id or None,
        speaker=value.speaker or None,
        kinds=frozenset(_KINDS[number] for number in value.kinds if number in _KINDS),
        metadata=dict(value.metadata),
    )


def finish_reason(number: cpb.FinishReason.ValueType) -> str:
    """Return a finish reason as it is stored."""
    return cpb.FinishReason.Name(number).removeprefix(_FINISH_PREFIX).lower()


def _stamp(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def conversation_message(value: Conversation) -> cpb.Conversation:
    """Return a conversation for the wire."""
    return cpb.Conversation(
        id=value.conversation_id,
        title=value.title,
        metadata=value.metadata,
        created_at=_stamp(value.created_at),
        updated_at=_stamp(value.updated_at),
        message_count=value.message_count,
    )


def message_message(value: Message) -> cpb.Message:
    """Return a message for the wire."""
    finish = f"{_FINISH_PREFIX}{(value.finish_reason or 'unspecified').upper()}"
    return cpb.Message(
        id=str(value.message_id),
        conversation_id=value.conversation_id,
        seq=value.seq,
        role=_ROLE_NUMBERS[value.role],
        speaker=value.speaker,
        text=value.text,
        time=_stamp(value.said_at),
        metadata=value.metadata,
        in_reply_to=str(value.in_reply_to or ""),
        parent_message_id=str(value.parent_message_id or ""),
        finish_reason=cpb.FinishReason.Value(finish),
        model=value.model,
    )


def turn_message(value: Turn) -> cpb.GetTurnResponse:
    """Return a turn for the wire."""
    return cpb.GetTurnResponse(
        request_id=value.request_id,
        conversation_id=value.conversation_id,
        message_id=str(value.message_id),
        reply_id=str(value.reply_id or ""),
        explanation=value.explanation,
        time=_stamp(value.replied_at) if value.replied_at else None,
    )


def refused(place: int) -> cpb.RefusedMessage:
    """Return for the wire that the message at a place in the request was refused."""
    return cpb.RefusedMessage(index=place, reason=errors_pb2.ERROR_REASON_REQUEST_ID_REUSED)


def memory_message(value: Memory) -> mpb.Memory:
    """Return a memory for the wire."""
    return mpb.Memory(
        id=str(value.memory_id),
        version=value.version,
        kind=_KIND_NUMBERS[value.kind],
        text=value.text,
        speaker=value.speaker,
        role=_ROLE_NUMBERS[value.role],
        time=_stamp(value.said_at),
        metadata=value.metadata,
        message_id=str(value.message_id or ""),
        conversation_id=value.conversation_id or "",
        seq=value.seq or 0,
        created_at=_stamp(value.created_at),
        updated_at=_stamp(value.updated_at),
    )


def recall_response(value: Recalled) -> mpb.RecallResponse:
    """Return what was recalled for the wire."""
    return mpb.RecallResponse(
        hits=[_hit_message(hit) for hit in value.hits],
        degraded=value.degraded.keys(),
        degraded_reasons=value.degraded.values(),
    )


def _hit_message(hit: Hit) -> mpb.RecallHit:
    reasons = hit.reasons
    return mpb.RecallHit(
        memory=memory_message(hit.memory),
        score=hit.score,
        scores=mpb.RecallScores(
            keyword=reasons.keyword,
            dense=reasons.dense or 0.0,
            max_sim=reasons.max_sim or 0.0,
            speaker=reasons.speaker,
            neighbours=reasons.neighbours,
            recency=reasons.recency,
            fused=reasons.fused,
        ),
        previous_text=hit.previous_text,
        next_text=hit.next_text,
    )
