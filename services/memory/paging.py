"""Page tokens: opaque keyset positions, bound to the query they came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from services.memory.model import Message
from services.runtime.errors import AppError, Reason

DEFAULT_PAGE = 50
"""Rows on a page when the caller names no size."""

MAX_PAGE_BYTES = 2 * 2**20
"""Half of what a gRPC message may hold."""

_ROW_BYTES = 2048
"""What a row has beside its text, about: ids, times, metadata."""

Row = TypeVar("Row")

_DIGEST_BYTES = 8
"""Enough to tell queries apart; a token grants nothing that its holder could not ask for."""


def page_size(asked: int) -> int:
    """Return the number of rows for an asked size; 0 means the default."""
    return asked or DEFAULT_PAGE


def cut(rows: Sequence[Row], size: int, text_of: Callable[[Row], str]) -> tuple[list[Row], bool]:
    """Return the rows of a page, of at most ``size`` rows and about 2 MiB, and whether more follow.

    ``rows`` holds one more than ``size`` if there are more. A page has at least one row.
    """
    page: list[Row] = []
    total = 0
    for row in rows[:size]:
        total += len(text_of(row).encode()) + _ROW_BYTES
        if page and total > MAX_PAGE_BYTES:
            break
        page.append(row)
    return page, len(rows) > len(page)


def newest(messages: Sequence[Message]) -> list[Message]:
    """Return the newest of messages in order, as many as fit one answer."""
    page, _ = cut(list(reversed(messages)), len(messages), lambda message: message.text)
    return page[::-1]


def _digest(query: Sequence[object]) -> str:
    text = json.dumps([str(part) for part in query])
    return hashlib.sha256(text.encode()).hexdigest()[: _DIGEST_BYTES * 2]


def encode(query: Sequence[object], position: Sequence[str]) -> str:
    """Return the token that goes on after ``position`` (the last row's key) of ``query``."""
    body = json.dumps([_digest(query), *position]).encode()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def decode(
    token: str, query: Sequence[object], *parsers: Callable[[str], Any]
) -> tuple[Any, ...] | None:
    """Return the position in ``token``, read by ``parsers``; None stands for the first page.

    Raises INVALID_PAGE_TOKEN for bytes that are no token, or a token of another query.
    """
    if not token:
        return None
    try:
        digest, *parts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        position = tuple(parse(part) for parse, part in zip(parsers, parts, strict=True))
    except (binascii.Error, ValueError, TypeError, AttributeError):
        digest, position = None, ()
    if digest != _digest(query):
        raise AppError(Reason.INVALID_PAGE_TOKEN, "page_token does not belong to this query")
    return position
