"""From the mesh's messages to the JSON that the page reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2

# Where a stored message carries its key, so that a page that was loaded anew still knows it.
KEY = "message_key"
# A conversation is listed by the beginning of its first message.
_OPENING_CHARS = 80


def enum_name(enum: Any, number: int, prefix: str) -> str:
    """An enum value in lower case without its prefix; empty for none and for an unknown one."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return value.name.removeprefix(prefix).lower() if value and number else ""


def moment(message: Any, field: str) -> str | None:
    """A timestamp field in RFC 3339, None where it is unset."""
    return getattr(message, field).ToJsonString() if message.HasField(field) else None


def milliseconds(message: Any, field: str) -> int | None:
    """A duration field in whole milliseconds, None where it is unset."""
    value: Duration = getattr(message, field)
    return value.ToMilliseconds() if message.HasField(field) else None


def decision(value: chat_pb2.Decision) -> dict[str, Any]:
    """What was chosen, and why."""
    return {
        "tier": enum_name(chat_pb2.Tier, value.tier, "TIER_"),
        "query_type": enum_name(chat_pb2.QueryType, value.query_type, "QUERY_TYPE_"),
        "model": value.model,
        "reason": value.reason,
    }


def used_memory(value: chat_pb2.UsedMemory) -> dict[str, Any]:
    """A memory that was laid before the model; no text: it was forgotten since."""
    return {
        "id": value.memory_id,
        "text": value.text,
        "speaker": value.speaker,
        "time": moment(value, "time"),
        "score": value.score,
        "conversation_id": value.conversation_id,
    }


def finish_reason(number: int) -> str:
    """Why a reply ended."""
    return enum_name(conversation_pb2.FinishReason, number, "FINISH_REASON_")


def usage(message: Any) -> dict[str, int]:
    """The tokens of a reply."""
    used = message.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cached_tokens": used.cached_tokens,
    }


def confidence(message: Any) -> float | None:
    """How likely the memories hold an answer at all, if that is known."""
    return message.confidence if message.HasField("confidence") else None


def explanation(why: routing_pb2.ExplainResponse) -> dict[str, Any]:
    """Why a reply is as it is."""
    return {
        "request_id": why.request_id,
        "conversation_id": why.conversation_id,
        "message_id": why.message_id,
        "reply_id": why.reply_id,
        "time": moment(why, "time"),
        "decision": decision(why.decision),
        "attempts": [
            {
                "model": each.model,
                "error_reason": each.error_reason.lower(),
                "elapsed_ms": each.elapsed_ms,
            }
            for each in why.attempts
        ],
        "degraded": list(why.degraded),
        "finish_reason": finish_reason(why.finish_reason),
        "memories": [used_memory(each) for each in why.memories],
        "used_memory_ids": list(why.used_memory_ids),
        "confidence": confidence(why),
        "usage": usage(why),
        "timings": {
            f"{name}_ms": milliseconds(why.timings, name)
            for name in ("started", "prepared", "first_text", "generated")
        },
        "trace_id": why.trace_id,
        "trace_url": why.trace_url,
    }


def conversation(
    value: conversation_pb2.Conversation, opening: conversation_pb2.Message | None
) -> dict[str, Any]:
    """A conversation in a list; `opening` is its first message."""
    text = " ".join(opening.text.split()) if opening else ""
    return {
        "id": value.id,
        "title": value.title,
        "opening": text[:_OPENING_CHARS] + ("…" if len(text) > _OPENING_CHARS else ""),
        "updated_at": moment(value, "updated_at"),
        "message_count": value.message_count,
    }


def message(value: conversation_pb2.Message) -> dict[str, Any]:
    """A stored message; no text: it was forgotten."""
    return {
        "id": value.id,
        "seq": value.seq,
        "role": enum_name(conversation_pb2.MessageRole, value.role, "MESSAGE_ROLE_"),
        "speaker": value.speaker,
        "text": value.text,
        "time": moment(value, "time"),
        "in_reply_to": value.in_reply_to,
        "parent_message_id": value.parent_message_id,
        "finish_reason": finish_reason(value.finish_reason),
        "model": value.model,
        "message_key": value.metadata.get(KEY, ""),
    }


def memory(value: memory_pb2.Memory) -> dict[str, Any]:
    """A memory as it is now."""
    return {
        "id": value.id,
        "version": value.version,
        "kind": enum_name(memory_pb2.MemoryKind, value.kind, "MEMORY_KIND_"),
        "role": enum_name(conversation_pb2.MessageRole, value.role, "MESSAGE_ROLE_"),
        "text": value.text,
        "speaker": value.speaker,
        "time": moment(value, "time"),
        "conversation_id": value.conversation_id,
    }


def recall_hit(value: memory_pb2.RecallHit) -> dict[str, Any]:
    """A memory that was found, with why."""
    return {"memory": memory(value.memory), "score": value.score, "scores": _scores(value.scores)}


def _scores(value: memory_pb2.RecallScores) -> Mapping[str, float]:
    return {field.name: getattr(value, field.name) for field in value.DESCRIPTOR.fields}
