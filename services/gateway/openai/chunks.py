"""A turn's frames as the chunks of a streamed completion. Pure.

What a client has been sent cannot be taken back. When the mesh begins a reply anew, because the
model that was talking died or a replica was lost, the new text is held back as long as it repeats
what was sent, and goes on from there; once it differs the stream ends with an error, which says to
ask again: never a silent cut, never text of two replies in one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from services.gateway.openai.replies import (
    DONE,
    Reply,
    about,
    event,
    finish_reason,
    one_line,
    tool_call,
    usage,
)
from services.runtime.errors import AppError, Reason


class Chunks:
    """Turns the frames of one turn into events; the first kinds of frames make none.

    `chat` says which of both forms; `with_usage` asks for a last chunk with the token counts.
    """

    def __init__(self, reply_id: str, created: int, *, chat: bool, with_usage: bool) -> None:
        self.reply = Reply()
        self._id = reply_id
        self._created = created
        self._chat = chat
        self._with_usage = with_usage
        self._sent: list[str] = []
        # What was sent already of a reply that was begun anew, and is still to be said again.
        self._repeated = ""
        self._calls_sent = 0
        self._began = False
        self._head = b""

    def take(self, frame: chat_pb2.ChatResponse) -> bytes:
        """The events for a frame, maybe none; raises AppError where the stream must end."""
        kind = self.reply.take(frame)
        if kind == "text":
            return self._text(frame.text.text)
        if kind == "tool_call":
            return self._call(frame.tool_call)
        if kind == "restart":
            self._repeated = "".join(self._sent)
        return b"".join(self._end()) if kind == "final" else b""

    def _text(self, text: str) -> bytes:
        fresh = self._beyond_repeated(text) if self._repeated else text
        if not fresh:
            return b""
        self._sent.append(fresh)
        return self._start() + self._delta(fresh)

    def _beyond_repeated(self, text: str) -> str:
        """What of `text` goes beyond what was sent before; it must say the same up to there."""
        if self._repeated.startswith(text):
            self._repeated = self._repeated[len(text) :]
            return ""
        if not text.startswith(self._repeated):
            raise _begun_anew()
        fresh, self._repeated = text[len(self._repeated) :], ""
        return fresh

    def _call(self, call: models_pb2.ToolCall) -> bytes:
        index = len(self.reply.tool_calls) - 1
        if index < self._calls_sent:
            raise _begun_anew()
        self._calls_sent += 1
        delta = {"tool_calls": [{"index": index, **tool_call(call)}]}
        return self._start() + self._chunk(delta)

    def _end(self) -> Iterator[bytes]:
        final = self.reply.whole()
        if self._repeated or self._calls_sent > len(self.reply.tool_calls):
            raise _begun_anew()
        yield self._start()
        yield self._chunk({}, finish_reason(final), {"echomesh": about(self.reply, final)})
        if self._with_usage:
            yield event({**self._base(), "choices": [], "usage": usage(final)})
        yield DONE

    def _start(self) -> bytes:
        """The chunk that says who speaks, once; a plain completion has none."""
        if self._began:
            return b""
        self._began = True
        chunk = self._chunk({"role": "assistant", "content": ""}) if self._chat else b""
        self._head = self._prefix()
        return chunk

    def _base(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.reply.model,
        }

    def _prefix(self) -> bytes:
        """All of a chunk that comes before its text, made once: most chunks differ in that."""
        chunk = self._chunk({"content": ""}) if self._chat else self._plain("", None)
        return chunk.rpartition(b'""')[0]

    def _delta(self, text: str) -> bytes:
        tail = b'},"logprobs":null,"finish_reason":null}]' if self._chat else _PLAIN_TAIL
        usage_field = b',"usage":null' if self._with_usage else b""
        content = one_line(json.dumps(text, ensure_ascii=False)).encode()
        return self._head + content + tail + usage_field + b"}\n\n"

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None, more: dict[str, Any] | None = None
    ) -> bytes:
        if not self._chat:
            return self._plain("", finish, more)
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._base(), "choices": [choice], **self._usage_field(), **(more or {})})

    def _plain(self, text: str, finish: str | None, more: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return event({**self._base(), "choices": [choice], **self._usage_field(), **(more or {})})

    def _usage_field(self) -> dict[str, Any]:
        return {"usage": None} if self._with_usage else {}


_PLAIN_TAIL = b',"logprobs":null,"finish_reason":null}]'


def _begun_anew() -> AppError:
    text = "the reply was begun anew after part of it had been sent; ask again"
    return AppError(Reason.TURN_SUPERSEDED, text)
