"""What the client takes and returns. Times are aware datetimes in UTC."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from echomesh.memory.v1 import conversation_pb2, memory_pb2

_ROLES = {
    "user": conversation_pb2.MESSAGE_ROLE_USER,
    "assistant": conversation_pb2.MESSAGE_ROLE_ASSISTANT,
}
_ROLE_NAMES = {value: name for name, value in _ROLES.items()}


@dataclass(frozen=True)
class Conversation:
    """A conversation of the user."""

    id: str
    title: str
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime
    message_count: int


@dataclass(frozen=True)
class Message:
    """A stored message; `seq` is its position in the conversation, from 1."""

    id: str
    conversation_id: str
    seq: int
    role: str
    speaker: str
    text: str
    time: datetime
    metadata: dict[str, str]


@dataclass(frozen=True)
class NewMessage:
    """A message to import; `role` is "user" or "assistant".

    The same `request_id` is stored once, however often it is sent.
    """

    role: str
    text: str
    speaker: str = ""
    time: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class ImportResult:
    """What became of imported messages.

    `duplicates` were stored before. `refused` are the request ids that were used before for
    something else: nothing of those messages is stored.
    """

    stored: int
    duplicates: int
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """Something remembered of the user."""

    id: str
    version: int
    kind: str
    text: str
    speaker: str
    time: datetime
    metadata: dict[str, str]
    conversation_id: str
    message_id: str


@dataclass(frozen=True)
class RecallHit:
    """A recalled memory; `scores` says why it was found, by source."""

    memory: Memory
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class RecallResult:
    """Hits, best first, and what could not take part."""

    hits: tuple[RecallHit, ...]
    degraded: tuple[str, ...]


def timestamp(when: datetime | None) -> Timestamp | None:
    """An aware datetime as a Timestamp; a naive one is taken as UTC."""
    if when is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(when if when.tzinfo else when.replace(tzinfo=UTC))
    return stamp


def conversation(m: conversation_pb2.Conversation) -> Conversation:
    """Read a conversation."""
    created, updated = m.created_at.ToDatetime(UTC), m.updated_at.ToDatetime(UTC)
    return Conversation(m.id, m.title, dict(m.metadata), created, updated, m.message_count)


def message(m: conversation_pb2.Message) -> Message:
    """Read a message."""
    return Message(
        id=m.id,
        conversation_id=m.conversation_id,
        seq=m.seq,
        role=_ROLE_NAMES.get(m.role, str(m.role)),
        speaker=m.speaker,
        text=m.text,
        time=m.time.ToDatetime(UTC),
        metadata=dict(m.metadata),
    )


def new_message(m: NewMessage) -> conversation_pb2.NewMessage:
    """Write a message; an unknown role raises ValueError."""
    if m.role not in _ROLES:
        raise ValueError(f'role must be "user" or "assistant", not {m.role!r}')
    return conversation_pb2.NewMessage(
        request_id=m.request_id,
        role=_ROLES[m.role],
        speaker=m.speaker,
        text=m.text,
        time=timestamp(m.time),
        metadata=m.metadata,
    )


def _kind(kind: memory_pb2.MemoryKind.ValueType) -> str:
    """Read a kind; one that is newer than this client keeps its number."""
    if kind not in memory_pb2.MemoryKind.values():
        return str(kind)
    return memory_pb2.MemoryKind.Name(kind).removeprefix("MEMORY_KIND_").lower()


def memory(m: memory_pb2.Memory) -> Memory:
    """Read a memory."""
    return Memory(
        id=m.id,
        version=m.version,
        kind=_kind(m.kind),
        text=m.text,
        speaker=m.speaker,
        time=m.time.ToDatetime(UTC),
        metadata=dict(m.metadata),
        conversation_id=m.conversation_id,
        message_id=m.message_id,
    )


def recall_result(m: memory_pb2.RecallResponse) -> RecallResult:
    """Read an answer of Recall."""
    return RecallResult(
        hits=tuple(
            RecallHit(
                memory(hit.memory),
                hit.score,
                {
                    field.name: getattr(hit.scores, field.name)
                    for field in hit.scores.DESCRIPTOR.fields
                },
            )
            for hit in m.hits
        ),
        degraded=tuple(m.degraded),
    )
