"""What headers say of a request: its conversation, its memory, and that it is a repetition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from services.runtime.errors import AppError, Reason, invalid

CONVERSATION = "x-echomesh-conversation"
MEMORY = "x-echomesh-memory"
PERSONA = "x-echomesh-persona"
IDEMPOTENCY_KEY = "idempotency-key"
# What Open WebUI tells of a chat where its operator allows it (ENABLE_FORWARD_USER_INFO_HEADERS).
OPENWEBUI_CHAT = "x-openwebui-chat-id"
OPENWEBUI_USER = "x-openwebui-user-id"
_LIMITS = {
    CONVERSATION: 128,
    PERSONA: 64,
    IDEMPOTENCY_KEY: 64,
    OPENWEBUI_CHAT: 128,
    OPENWEBUI_USER: 128,
}


class MemoryUse(Enum):
    """What a request has to do with what is remembered."""

    ON = "on"
    """What fits is recalled; message and reply are stored."""
    READ = "read"
    """What fits is recalled; nothing is stored."""
    OFF = "off"
    """Nothing is recalled and nothing is stored."""


@dataclass(frozen=True)
class Asked:
    """What a request's headers ask for; empty where they say nothing.

    `brings_history` tells of a client that always sends all that was said in the conversation.
    """

    conversation_id: str = ""
    brings_history: bool = False
    memory: MemoryUse | None = None
    persona: str = ""
    request_id: str = ""


def asked_in(headers: Mapping[str, str]) -> Asked:
    """Read the headers; raises AppError INVALID_REQUEST, naming the header."""
    named, chat = _text(headers, CONVERSATION), _text(headers, OPENWEBUI_CHAT)
    return Asked(
        conversation_id=named or chat,
        brings_history=bool(chat),
        memory=_memory(headers.get(MEMORY)),
        persona=_text(headers, PERSONA),
        request_id=_text(headers, IDEMPOTENCY_KEY),
    )


def user_in(headers: Mapping[str, str]) -> str:
    """The end user that a front end names; raises AppError INVALID_REQUEST."""
    return _text(headers, OPENWEBUI_USER)


def _text(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if len(value) > _LIMITS[name] or not value.isprintable():
        raise invalid(name, f"must be at most {_LIMITS[name]} printable characters")
    return value


def _memory(value: str | None) -> MemoryUse | None:
    if value is None:
        return None
    try:
        return MemoryUse(value.strip().lower())
    except ValueError:
        raise AppError(Reason.INVALID_REQUEST, f"{MEMORY} must be on, read or off") from None
