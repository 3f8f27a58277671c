"""Request ids and body hashes: what makes a write idempotent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from services.runtime.errors import AppError, Reason


def appended_id(request_id: str) -> str:
    """Return the stored request id of an appended message; prefixes keep origins apart."""
    return f"i:{request_id}"


def turn_message_id(request_id: str) -> str:
    """Return the stored request id of the user's message of a chat turn."""
    return f"t:{request_id}"


def keyed_message_id(conversation_id: str, message_key: str) -> str:
    """Return the stored request id of a user's message that several turns may answer."""
    digest = hashlib.sha256(f"{conversation_id}\0{message_key}".encode()).hexdigest()
    return f"k:{digest}"


def turn_reply_id(request_id: str) -> str:
    """Return the stored request id of the reply of a chat turn."""
    return f"r:{request_id}"


def turn_of(stored: str) -> str:
    """Return the turn's request id of a message's stored one; empty for one of no turn."""
    origin, _, request_id = stored.partition(":")
    return request_id if origin in {"t", "r"} else ""


def body_hash(fields: Mapping[str, object]) -> bytes:
    """Return the SHA-256 of a request's fields, independent of their order."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).digest()


def check_same_body(stored: bytes | None, given: bytes, request_id: str = "") -> None:
    """Raise REQUEST_ID_REUSED unless a repeated request carries the body it had at first.

    The error names ``request_id``, where a call carries several.
    """
    if stored != given:
        raise reused({"request_id": request_id} if request_id else {})


def reused(metadata: Mapping[str, str]) -> AppError:
    """Return the error for a request id that was used with another body."""
    text = "this request_id was used with another request body"
    return AppError(Reason.REQUEST_ID_REUSED, text, metadata=metadata)
