"""From the frames of a turn to the events that the page reads: one JSON object each. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from echomesh.routing.v1 import chat_pb2
from services.gateway.errors import error_body
from services.gateway.page import shapes
from services.runtime.errors import AppError


def event_of(frame: chat_pb2.ChatResponse) -> bytes:
    """A frame as a server-sent event; nothing for a kind that this release does not know."""
    kind = frame.WhichOneof("frame")
    if kind not in _BODIES:
        return b""
    return _event({"type": kind, **_BODIES[kind](getattr(frame, kind))})


def error_event(error: AppError) -> bytes:
    """The last event of a stream that failed, as an error's body says it."""
    told = {"type": "error", **error_body(error)}
    if error.retry_after_s is not None:
        told["retry_after_s"] = error.retry_after_s
    return _event(told)


def _event(body: Mapping[str, Any]) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"


def _accepted(value: chat_pb2.Accepted) -> dict[str, Any]:
    return {
        "request_id": value.request_id,
        "conversation_id": value.conversation_id,
        "trace_id": value.trace_id,
        "replayed": value.replayed,
        "assistant_name": value.assistant_name,
    }


def _progress(value: chat_pb2.Progress) -> dict[str, Any]:
    return {
        "stage": shapes.enum_name(chat_pb2.Progress.Stage, value.stage, "STAGE_"),
        "position": value.position,
        "estimate_ms": shapes.milliseconds(value, "estimate"),
    }


def _memories(value: chat_pb2.MemoriesUsed) -> dict[str, Any]:
    return {"memories": [shapes.used_memory(each) for each in value.memories]}


def _final(value: chat_pb2.Final) -> dict[str, Any]:
    return {
        "message_id": value.message_id,
        "reply_id": value.reply_id,
        "finish_reason": shapes.finish_reason(value.finish_reason),
        "message_stored": _stored(value.message_stored),
        "reply_stored": _stored(value.reply_stored),
        "degraded": list(value.degraded),
        "usage": shapes.usage(value),
        "tier": shapes.enum_name(chat_pb2.Tier, value.tier, "TIER_"),
        "model": value.model,
        "first_text_ms": shapes.milliseconds(value, "first_text"),
        "total_ms": shapes.milliseconds(value, "total"),
        "trace_id": value.trace_id,
        "used_memory_ids": list(value.used_memory_ids),
        "confidence": shapes.confidence(value),
    }


def _stored(number: int) -> str:
    return shapes.enum_name(chat_pb2.StoreResult, number, "STORE_RESULT_") or "unknown"


_BODIES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "accepted": _accepted,
    "progress": _progress,
    "decision": shapes.decision,
    "memories": _memories,
    "text": lambda value: {"text": value.text},
    "tool_call": lambda value: {"name": value.name, "arguments": value.arguments_json},
    "restart": lambda value: {"reason": value.reason},
    "resume": lambda value: {"model": value.model},
    "final": _final,
}
