"""What is remembered of a message: one episodic memory, with the message's own id. Pure."""

from __future__ import annotations

from services.memory.model import NewMemory, NewMessage
from services.memory.recall import document_terms


def episode(message: NewMessage, conversation_id: str, seq: int) -> NewMemory:
    """Return the memory of ``message``, stored as number ``seq`` of its conversation."""
    return NewMemory(
        memory_id=message.message_id,
        kind="episodic",
        text=message.text,
        speaker=message.speaker,
        role=message.role,
        said_at=message.said_at,
        terms=document_terms(message.text, message.said_at),
        metadata=message.metadata,
        message_id=message.message_id,
        conversation_id=conversation_id,
        seq=seq,
    )
