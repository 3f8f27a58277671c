"""From the frames of a turn to the bodies that OpenAI's clients read. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from echomesh.memory.v1 import conversation_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from services.gateway.errors import error_body
from services.runtime.errors import AppError, Reason

DONE = b"data: [DONE]\n\n"
# What JSON may hold as it is, and some clients take for the end of a line of the stream.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_M = conversation_pb2
_FINISH = {
    _M.FINISH_REASON_LENGTH: "length",
    _M.FINISH_REASON_TOOL_CALLS: "tool_calls",
}
_STORED = {
    chat_pb2.STORE_RESULT_STORED: "stored",
    chat_pb2.STORE_RESULT_NOT_STORED: "not_stored",
    chat_pb2.STORE_RESULT_UNKNOWN: "unknown",
}
_TIER_NAMES = {
    chat_pb2.TIER_INSTANT: "instant",
    chat_pb2.TIER_FAST: "fast",
    chat_pb2.TIER_STANDARD: "standard",
}
_BROKEN_OFF = {
    _M.FINISH_REASON_ERROR: Reason.MODEL_UNAVAILABLE,
    _M.FINISH_REASON_DEADLINE: Reason.DEADLINE_EXCEEDED,
    _M.FINISH_REASON_CANCELLED: Reason.CANCELLED,
}


@dataclass
class Reply:
    """A reply as it grows; `take` reads its frames."""

    parts: list[str] = field(default_factory=list)
    tool_calls: list[models_pb2.ToolCall] = field(default_factory=list)
    model: str = ""
    conversation_id: str = ""
    memories: list[chat_pb2.UsedMemory] = field(default_factory=list)
    final: chat_pb2.Final | None = None

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(self.parts)

    def take(self, frame: chat_pb2.ChatResponse) -> str:
        """Read a frame and return its kind."""
        kind = frame.WhichOneof("frame") or ""
        if kind == "text":
            self.parts.append(frame.text.text)
        elif kind == "tool_call":
            self.tool_calls.append(frame.tool_call)
        elif kind == "restart":
            self.parts.clear()
            self.tool_calls.clear()
        elif kind == "accepted":
            self.conversation_id = frame.accepted.conversation_id
        elif kind == "decision":
            self.model = frame.decision.model
        elif kind == "memories":
            self.memories = list(frame.memories.memories)
        elif kind == "final":
            self.final = frame.final
            self.model = frame.final.model or self.model
        return kind

    def whole(self) -> chat_pb2.Final:
        """The final frame; raises AppError for a reply that broke off, with whatever text."""
        final = self.final
        if final is None:
            raise AppError(Reason.INTERNAL, "the reply ended without its end")
        reason = _BROKEN_OFF.get(final.finish_reason)
        if reason is not None:
            raise AppError(reason, "the reply broke off", retry_after_s=1.0)
        return final


def finish_reason(final: chat_pb2.Final) -> str:
    """Why a reply ended, in OpenAI's words."""
    return _FINISH.get(final.finish_reason, "stop")


def usage(final: chat_pb2.Final) -> dict[str, Any]:
    """The tokens of a reply."""
    used = final.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
    }


def about(reply: Reply, final: chat_pb2.Final) -> dict[str, Any]:
    """What the mesh tells beside what OpenAI does: under `echomesh`, which clients leave alone."""
    return {
        "conversation_id": reply.conversation_id,
        "message_id": final.message_id,
        "reply_id": final.reply_id,
        "message_stored": _STORED.get(final.message_stored, "unknown"),
        "reply_stored": _STORED.get(final.reply_stored, "unknown"),
        "tier": _TIER_NAMES.get(final.tier, ""),
        "degraded": list(final.degraded),
        "used_memory_ids": list(final.used_memory_ids),
        "first_text_ms": final.first_text.ToMilliseconds(),
        "total_ms": final.total.ToMilliseconds(),
        "trace_id": final.trace_id,
    }


def message_of(reply: Reply) -> dict[str, Any]:
    """A reply as a message."""
    message: dict[str, Any] = {
        "role": "assistant",
        # OpenAI's own replies that only call tools have no content.
        "content": reply.text or (None if reply.tool_calls else ""),
        "refusal": None,
    }
    if reply.tool_calls:
        message["tool_calls"] = [tool_call(call) for call in reply.tool_calls]
    return message


def tool_call(call: models_pb2.ToolCall) -> dict[str, Any]:
    """A call of a tool."""
    function = {"name": call.name, "arguments": call.arguments_json}
    return {"id": call.id, "type": "function", "function": function}


def chat_completion(reply: Reply, reply_id: str, created: int) -> dict[str, Any]:
    """The body of a chat completion; raises AppError if the reply broke off."""
    final = reply.whole()
    choice = {
        "index": 0,
        "message": message_of(reply),
        "logprobs": None,
        "finish_reason": finish_reason(final),
    }
    return _body("chat.completion", reply, final, reply_id, created, choice)


def text_completion(reply: Reply, reply_id: str, created: int) -> dict[str, Any]:
    """The body of a plain completion; raises AppError if the reply broke off."""
    final = reply.whole()
    choice = {
        "index": 0,
        "text": reply.text,
        "logprobs": None,
        "finish_reason": finish_reason(final),
    }
    return _body("text_completion", reply, final, reply_id, created, choice)


def _body(
    kind: str,
    reply: Reply,
    final: chat_pb2.Final,
    reply_id: str,
    created: int,
    choice: dict[str, Any],
) -> dict[str, Any]:
    return {
        "id": reply_id,
        "object": kind,
        "created": created,
        "model": reply.model,
        "choices": [choice],
        "usage": usage(final),
        "echomesh": about(reply, final),
    }


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + one_line(text).encode() + b"\n\n"


def one_line(text: str) -> str:
    """JSON in which nothing ends a line, whatever a client takes for that."""
    return text if text.isascii() else text.translate(_LINE_ENDS)


def error_event(error: AppError) -> bytes:
    """The event of an error in the middle of a stream, which clients raise."""
    return event(error_body(error))
