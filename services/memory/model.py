"""The value types of the memory service: what is stored, asked for and given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from uuid import UUID

from services.memory.recall.types import Candidate, Kind, Role


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose data it is: every statement names both, and row-level security checks both again."""

    tenant_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as stored; times are UTC."""

    conversation_id: str
    title: str
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    message_count: int


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A conversation to make. ``conversation_id`` is final; ``body_sha256`` covers the request."""

    request_id: str
    body_sha256: bytes
    conversation_id: str
    title: str
    metadata: Mapping[str, str]
    now: datetime


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to store.

    ``request_id`` is prefixed by its origin (see :mod:`.ids`); ``said_at`` is when it was said.
    ``body_sha256`` is of what was asked to be appended; a turn's messages have none of their own.
    """

    message_id: UUID
    request_id: str
    role: Role
    speaker: str
    text: str
    said_at: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)
    in_reply_to: UUID | None = None
    parent_message_id: UUID | None = None
    finish_reason: str = ""
    model: str = ""
    body_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message; ``seq`` counts from 1 within its conversation."""

    message_id: UUID
    conversation_id: str
    seq: int
    role: Role
    speaker: str
    text: str
    said_at: datetime
    metadata: Mapping[str, str]
    in_reply_to: UUID | None
    parent_message_id: UUID | None
    finish_reason: str
    model: str


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to store. ``terms`` are the counts of its dated text's stemmed terms."""

    memory_id: UUID
    kind: Kind
    text: str
    speaker: str
    role: Role
    said_at: datetime
    terms: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    message_id: UUID | None = None
    conversation_id: str | None = None
    seq: int | None = None
    request_id: str | None = None
    body_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """A stored memory at one version."""

    memory_id: UUID
    version: int
    kind: Kind
    text: str
    speaker: str
    role: Role
    said_at: datetime
    metadata: Mapping[str, str]
    message_id: UUID | None
    conversation_id: str | None
    seq: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """An update: ``None`` leaves a field as it is. ``expected_version`` 0 takes any version."""

    request_id: str
    body_sha256: bytes
    memory_id: UUID
    expected_version: int
    now: datetime
    text: str | None = None
    kind: Kind | None = None
    said_at: datetime | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Vector:
    """A memory's vector under one model: fp16 little-endian, and int8 token rows if there are."""

    model: str
    version: int
    dimensions: int
    vector: bytes
    token_vectors: bytes | None = None


@dataclass(frozen=True)
class Remembered:
    """A memory with what scoring it needs."""

    memory: Memory
    terms: Mapping[str, int]
    indexed_version: int
    vector: Vector | None

    @cached_property
    def candidate(self) -> Candidate:
        """What recall makes of it, made once: rows are kept from question to question."""
        memory, vector = self.memory, self.vector
        return Candidate(
            memory_id=str(memory.memory_id),
            conversation_id=memory.conversation_id,
            seq=memory.seq,
            speaker=memory.speaker,
            role=memory.role,
            text=memory.text,
            time=memory.said_at,
            vector=vector.vector if vector else None,
            terms=self.terms,
            metadata=memory.metadata,
            kind=memory.kind,
            version=memory.version,
            token_vectors=vector.token_vectors if vector else None,
        )


@dataclass(frozen=True, slots=True)
class Head:
    """What tells whether a row of a live memory, read before, is still as it was.

    ``version`` is its number and when it came to be: a database put back to an earlier day counts
    the same numbers again. ``pending``: it was asked for because the index lacks it. ``after``:
    because it was said just after another.
    """

    memory_id: UUID
    version: tuple[int, datetime]
    indexed_version: int
    pending: bool
    after: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of an append: ids in the order of the request, None where one was refused.

    ``refused`` are the places of those, from 0: their request ids were used with another body.
    """

    message_ids: Sequence[UUID | None]
    stored: int
    refused: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class CorpusNumbers:
    """A user's corpus in numbers: memories, document frequency of the asked terms, speakers."""

    documents: int
    document_frequency: Mapping[str, int]
    speakers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Job:
    """An outbox job: one memory whose index entry must be brought in step."""

    owner: Owner
    memory_id: UUID
    generation: int
    attempts: int
    traceparent: str | None = None
    """The span that queued it, if any did."""


@dataclass(frozen=True, slots=True)
class BeginTurn:
    """The user's message of a chat turn. ``message_id`` counts only if the message is new.

    ``message_key`` names it within its conversation, for clients that send a message again to get
    another reply; without one it is new unless the turn was begun before.
    """

    request_id: str
    body_sha256: bytes
    conversation_id: str
    message_id: UUID
    text: str
    speaker: str
    metadata: Mapping[str, str]
    parent_message_id: UUID | None
    recent_limit: int
    now: datetime
    message_key: str = ""


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A turn that the caller runs from now on, or its reply to replay."""

    message: Message
    epoch: int
    reply: Message | None
    recent: Sequence[Message]


@dataclass(frozen=True, slots=True)
class CompleteTurn:
    """The reply of a chat turn, written by the runner of ``epoch``."""

    request_id: str
    epoch: int
    reply_id: UUID
    text: str
    speaker: str
    finish_reason: str
    model: str
    metadata: Mapping[str, str]
    now: datetime
    explanation: bytes = b""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as stored. What is about the reply is unset while there is none."""

    request_id: str
    conversation_id: str
    message_id: UUID
    reply_id: UUID | None
    explanation: bytes
    replied_at: datetime | None


@dataclass(frozen=True, slots=True)
class IndexState:
    """Which life of the index, and which embedding model, the rows' indexed versions speak of."""

    generation: str
    model: str
    reconcile_wanted: bool
