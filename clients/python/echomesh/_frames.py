"""What a chat yields: one class for each kind of frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from echomesh.memory.v1 import conversation_pb2
from echomesh.routing.v1 import chat_pb2


@dataclass(frozen=True)
class Accepted:
    """The request was understood; `replayed` if the turn had been finished before."""

    request_id: str
    conversation_id: str
    trace_id: str
    replayed: bool
    assistant_name: str


@dataclass(frozen=True)
class Progress:
    """What the mesh is doing: "queued", "recalling", "waking" or "generating"."""

    stage: str
    position: int
    estimate_s: float


@dataclass(frozen=True)
class Decision:
    """Tier ("instant", "fast", "standard"), query type and model, and why."""

    tier: str
    query_type: str
    model: str
    reason: str


@dataclass(frozen=True)
class UsedMemory:
    """A memory that the reply may rest on; `time` is when it was said, in UTC."""

    memory_id: str
    text: str
    speaker: str
    time: datetime
    score: float
    conversation_id: str


@dataclass(frozen=True)
class MemoriesUsed:
    """The memories put before the model, best first."""

    memories: tuple[UsedMemory, ...]


@dataclass(frozen=True)
class Text:
    """More text of the reply."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """The model asks for a tool; `arguments_json` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True)
class Restart:
    """Discard all text so far: the reply begins again."""

    reason: str


@dataclass(frozen=True)
class Resume:
    """Another model goes on; the text so far stays."""

    model: str


@dataclass(frozen=True)
class Final:
    """The reply is complete and its fate is known.

    `message_stored` and `reply_stored` are "stored", "not_stored" or "unknown"; times are in
    seconds from the start of the call, as the mesh measured them. `confidence` (0..1) says how
    likely the memories hold an answer; None where a language model answered.
    """

    message_id: str
    reply_id: str
    finish_reason: str
    message_stored: str
    reply_stored: str
    degraded: tuple[str, ...]
    tier: str
    model: str
    first_text_s: float
    total_s: float
    prompt_tokens: int
    completion_tokens: int
    trace_id: str
    used_memory_ids: tuple[str, ...]
    confidence: float | None = None


Frame: TypeAlias = (
    Accepted | Progress | Decision | MemoriesUsed | Text | ToolCall | Restart | Resume | Final
)


def _name(enum: Any, value: int, prefix: str) -> str:
    """TIER_INSTANT -> "instant"; a value newer than this client keeps its number."""
    if value not in enum.values():
        return str(value)
    return str(enum.Name(value)).removeprefix(prefix).lower()


def _accepted(m: chat_pb2.Accepted) -> Accepted:
    return Accepted(m.request_id, m.conversation_id, m.trace_id, m.replayed, m.assistant_name)


def _progress(m: chat_pb2.Progress) -> Progress:
    stage = _name(chat_pb2.Progress.Stage, m.stage, "STAGE_")
    return Progress(stage, m.position, m.estimate.ToTimedelta().total_seconds())


def decision(m: chat_pb2.Decision) -> Decision:
    """What was chosen."""
    tier = _name(chat_pb2.Tier, m.tier, "TIER_")
    kind = _name(chat_pb2.QueryType, m.query_type, "QUERY_TYPE_")
    return Decision(tier, kind, m.model, m.reason)


def _memories(m: chat_pb2.MemoriesUsed) -> MemoriesUsed:
    return MemoriesUsed(tuple(used_memory(u) for u in m.memories))


def used_memory(u: chat_pb2.UsedMemory) -> UsedMemory:
    """A memory that was laid before the model."""
    said_at = u.time.ToDatetime(tzinfo=UTC)
    return UsedMemory(u.memory_id, u.text, u.speaker, said_at, u.score, u.conversation_id)


def finish_reason(value: conversation_pb2.FinishReason.ValueType) -> str:
    """The name of a finish reason, as `stop`."""
    return _name(conversation_pb2.FinishReason, value, "FINISH_REASON_")


def _final(m: chat_pb2.Final) -> Final:
    return Final(
        message_id=m.message_id,
        reply_id=m.reply_id,
        finish_reason=finish_reason(m.finish_reason),
        message_stored=_name(chat_pb2.StoreResult, m.message_stored, "STORE_RESULT_"),
        reply_stored=_name(chat_pb2.StoreResult, m.reply_stored, "STORE_RESULT_"),
        degraded=tuple(m.degraded),
        tier=_name(chat_pb2.Tier, m.tier, "TIER_"),
        model=m.model,
        first_text_s=m.first_text.ToTimedelta().total_seconds(),
        total_s=m.total.ToTimedelta().total_seconds(),
        prompt_tokens=m.usage.prompt_tokens,
        completion_tokens=m.usage.completion_tokens,
        trace_id=m.trace_id,
        used_memory_ids=tuple(m.used_memory_ids),
        confidence=m.confidence if m.HasField("confidence") else None,
    )


_READERS: dict[str, Callable[[Any], Frame]] = {
    "accepted": _accepted,
    "progress": _progress,
    "decision": decision,
    "memories": _memories,
    "text": lambda m: Text(m.text),
    "tool_call": lambda m: ToolCall(m.id, m.name, m.arguments_json),
    "restart": lambda m: Restart(m.reason),
    "resume": lambda m: Resume(m.model),
    "final": _final,
}


def read(response: chat_pb2.ChatResponse) -> Frame | None:
    """The typed frame, or None for a kind that is newer than this client."""
    kind = response.WhichOneof("frame")
    return _READERS[kind](getattr(response, kind)) if kind else None
