"""Page tokens: opaque text that holds the last row of the page before."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime

from services.runtime.errors import AppError, Reason

DEFAULT_PAGE_SIZE = 50


@dataclass(frozen=True)
class Cursor:
    """The place after which a page begins: rows are in order of time, then id."""

    created_at: datetime
    id: str


def encode_cursor(cursor: Cursor) -> str:
    """Return the page token of a place."""
    text = json.dumps([cursor.created_at.isoformat(), cursor.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(token: str) -> Cursor | None:
    """Return the place of a page token, None for the first page.

    Raises `AppError` INVALID_PAGE_TOKEN for anything that this service did not give out.
    """
    if not token:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        created_at, row_id = json.loads(base64.urlsafe_b64decode(padded.encode()))
        cursor = Cursor(datetime.fromisoformat(created_at), str(row_id))
    except (ValueError, TypeError) as error:
        raise AppError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid") from error
    if cursor.created_at.tzinfo is None:
        raise AppError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid")
    return cursor
