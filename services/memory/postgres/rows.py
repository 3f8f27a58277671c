"""Rows to values and back: the column lists, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from services.memory.model import Conversation, Memory, Message, Remembered, Vector

CONVERSATION_COLUMNS = (
    "conversation_id, title, metadata, created_at, updated_at, message_count, body_sha256"
)
MESSAGE_COLUMNS = (
    "message_id, conversation_id, seq, role, speaker, text, said_at, metadata, in_reply_to, "
    "parent_message_id, finish_reason, model"
)
MEMORY_COLUMNS = (
    "m.memory_id, m.version, m.kind, m.text, m.speaker, m.role, m.said_at, m.metadata, "
    "m.message_id, m.conversation_id, m.seq, m.created_at, m.updated_at"
)
REMEMBERED_COLUMNS = (
    f"{MEMORY_COLUMNS}, m.terms, m.term_counts, m.indexed_version, "
    "v.model, v.version AS vector_version, v.dimensions, v.vector, v.token_vectors"
)


ROWS_PER_SLICE = 128
"""Rows made into values between two looks at the event loop, about a millisecond of work."""

_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Row(Protocol):
    """A row as asyncpg gives it."""

    def __getitem__(self, name: str, /) -> Any:
        """Return a column's value."""


def to_json(value: Mapping[str, str]) -> str:
    """Return metadata as the JSON text of a jsonb parameter."""
    return json.dumps(dict(value))


def _metadata(text: str) -> Mapping[str, str]:
    found: Mapping[str, str] = _NO_METADATA if text == "{}" else json.loads(text)
    return found


def conversation(row: Row) -> Conversation:
    """Return the conversation of a row of CONVERSATION_COLUMNS."""
    return Conversation(
        conversation_id=row["conversation_id"],
        title=row["title"],
        metadata=_metadata(row["metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        message_count=row["message_count"],
    )


def message(row: Row) -> Message:
    """Return the message of a row of MESSAGE_COLUMNS."""
    return Message(
        message_id=row["message_id"],
        conversation_id=row["conversation_id"],
        seq=row["seq"],
        role=row["role"],
        speaker=row["speaker"],
        text=row["text"],
        said_at=row["said_at"],
        metadata=_metadata(row["metadata"]),
        in_reply_to=row["in_reply_to"],
        parent_message_id=row["parent_message_id"],
        finish_reason=row["finish_reason"],
        model=row["model"],
    )


def memory(row: Row) -> Memory:
    """Return the memory of a row of MEMORY_COLUMNS."""
    return Memory(
        memory_id=row["memory_id"],
        version=row["version"],
        kind=row["kind"],
        text=row["text"],
        speaker=row["speaker"],
        role=row["role"],
        said_at=row["said_at"],
        metadata=_metadata(row["metadata"]),
        message_id=row["message_id"],
        conversation_id=row["conversation_id"],
        seq=row["seq"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def remembered_all(found: Sequence[Row]) -> list[Remembered]:
    """Return the memories of many rows, letting other calls through between slices."""
    made: list[Remembered] = []
    for start in range(0, len(found), ROWS_PER_SLICE):
        made += [remembered(row) for row in found[start : start + ROWS_PER_SLICE]]
        await asyncio.sleep(0)
    return made


def remembered(row: Row) -> Remembered:
    """Return the memory with its scoring parts of a row of REMEMBERED_COLUMNS."""
    vector = None
    if row["vector"] is not None and row["vector_version"] == row["version"]:
        vector = Vector(
            model=row["model"],
            version=row["vector_version"],
            dimensions=row["dimensions"],
            vector=row["vector"],
            token_vectors=row["token_vectors"],
        )
    return Remembered(
        memory=memory(row),
        terms=dict(zip(row["terms"], row["term_counts"], strict=True)),
        indexed_version=row["indexed_version"],
        vector=vector,
    )
