"""Rows to values and back: the column lists, once."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


class Row(Protocol):
    """A row as asyncpg gives it."""

    def __getitem__(self, name: str, /) -> Any:
        """Return a column's value."""


def to_json(value: Mapping[str, str]) -> str:
    """Return metadata as the JSON text of a jsonb parameter."""
    return json.dumps(dict(value))


def conversation(row: Row) -> Conversation:
    """Return the conversation of a row of CONVERSATION_COLUMNS."""
    return Conversation(
        conversation_id=row["conversation_id"],
        title=row["title"],
        metadata=json.loads(row["metadata"]),
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
        metadata=json.loads(row["metadata"]),
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
        metadata=json.loads(row["metadata"]),
        message_id=row["message_id"],
        conversation_id=row["conversation_id"],
        seq=row["seq"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


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
