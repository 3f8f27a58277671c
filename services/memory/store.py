"""What the service needs stored, as protocols; :mod:`.postgres` has the implementation.

Every method is one transaction, acknowledged only when Postgres has it. Errors are AppError:
NOT_FOUND for an id that is nobody's or somebody else's, DEPENDENCY_UNAVAILABLE when Postgres is
away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.memory.model import (
    Appended,
    BeginTurn,
    BegunTurn,
    CompleteTurn,
    Conversation,
    CorpusNumbers,
    IndexState,
    Job,
    Memory,
    MemoryChange,
    Message,
    NewConversation,
    NewMemory,
    NewMessage,
    Owner,
    Remembered,
    Turn,
    Vector,
)
from services.memory.recall import MemoryFilter


class ConversationStore(Protocol):
    """Conversations, messages and turns of one owner."""

    async def create_conversation(self, owner: Owner, new: NewConversation) -> Conversation:
        """Store a conversation; idempotent by request id. Raises ALREADY_EXISTS."""

    async def get_conversation(self, owner: Owner, conversation_id: str) -> Conversation:
        """Return a conversation."""

    async def list_conversations(
        self,
        owner: Owner,
        metadata: Mapping[str, str],
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Conversation]:
        """Return conversations that hold all of ``metadata``, newest first, beyond ``after``."""

    async def delete_conversation(self, owner: Owner, conversation_id: str, now: datetime) -> int:
        """Delete a conversation and what is remembered of it; return how many messages."""

    async def append_messages(
        self, owner: Owner, conversation_id: str, messages: Sequence[NewMessage], now: datetime
    ) -> Appended:
        """Store messages with their memories; those stored before are left alone.

        One whose request id has another body is refused by itself. Raises REQUEST_ID_REUSED if
        that is so of all.
        """

    async def get_message(self, owner: Owner, message_id: UUID) -> Message:
        """Return a message."""

    async def list_messages(
        self, owner: Owner, conversation_id: str, after: int | None, limit: int, descending: bool
    ) -> list[Message]:
        """Return a conversation's messages in order of number, beyond number ``after``."""

    async def begin_turn(self, owner: Owner, new: BeginTurn) -> BegunTurn:
        """Begin, take over or replay a turn. Raises REQUEST_ID_REUSED."""

    async def complete_turn(self, owner: Owner, new: CompleteTurn) -> Message:
        """Store a turn's reply. Raises TURN_SUPERSEDED."""

    async def get_turn(self, owner: Owner, request_id: str) -> Turn:
        """Return the turn of a request."""

    async def get_turn_of(self, owner: Owner, message_id: UUID) -> Turn:
        """Return the turn that a message began or a reply ended."""


class MemoryStore(Protocol):
    """Memories of one owner."""

    async def remember(self, owner: Owner, memories: Sequence[NewMemory]) -> list[Memory]:
        """Store memories, all or none; idempotent by request id. Raises REQUEST_ID_REUSED."""

    async def get_memory(self, owner: Owner, memory_id: UUID) -> Memory:
        """Return a live memory."""

    async def update_memory(self, owner: Owner, change: MemoryChange) -> Memory:
        """Correct a memory, keeping its history. Raises VERSION_CONFLICT."""

    async def forget_memory(self, owner: Owner, memory_id: UUID, now: datetime) -> None:
        """Erase a memory's text everywhere; a second time is fine."""

    async def list_memories(
        self,
        owner: Owner,
        narrowed: MemoryFilter,
        after: tuple[datetime, UUID] | None,
        limit: int,
    ) -> list[Memory]:
        """Return live memories, newest first, beyond ``after``."""

    async def memory_versions(self, owner: Owner, memory_id: UUID) -> list[Memory]:
        """Return a memory's versions, the present one first."""

    async def index_lag(self, owner: Owner) -> tuple[int, int]:
        """Return how many live memories there are and how many the index lacks."""


class RecallStore(Protocol):
    """What recall reads of one owner."""

    async def overview(
        self, owner: Owner, terms: Sequence[str], narrowed: MemoryFilter, pending_limit: int
    ) -> tuple[CorpusNumbers, list[UUID]]:
        """Return corpus size, speakers and document frequencies of ``terms``.

        With them the ids of the newest rows that are not indexed yet.
        """

    async def candidates(
        self,
        owner: Owner,
        model: str,
        memory_ids: Sequence[UUID],
        narrowed: MemoryFilter,
        pending_limit: int,
    ) -> tuple[list[Remembered], list[Remembered], list[Remembered]]:
        """Return the rows of ``memory_ids``, the rows not indexed yet, and the turns after both."""

    async def keyword(
        self,
        owner: Owner,
        weights: Mapping[str, float],
        narrowed: MemoryFilter,
        row_cap: int,
        limit: int,
    ) -> list[UUID]:
        """Return ids by BM25 over the newest ``row_cap`` rows, best first."""

    async def texts_at(
        self, owner: Owner, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], str]:
        """Return the messages' texts at (conversation, number) places."""

    async def queue_repair(self, owner: Owner, memory_ids: Sequence[UUID]) -> None:
        """Queue memories whose index entries were found to be wrong."""


class JobStore(Protocol):
    """What background jobs do, across owners where they carry ids only."""

    async def claim(self, limit: int, lease_s: float) -> list[Job]:
        """Take due jobs for ``lease_s`` seconds."""

    async def done(self, jobs: Sequence[Job]) -> None:
        """Remove jobs; those whose memory changed meanwhile are due again."""

    async def hold(self, jobs: Sequence[Job], lease_s: float) -> None:
        """Keep hold of running jobs for another ``lease_s`` seconds."""

    async def hand_back(self, jobs: Sequence[Job]) -> None:
        """Make jobs due at once; uses up no attempt."""

    async def failed(self, jobs: Sequence[Job], max_attempts: int) -> None:
        """Count an attempt and back off; hold after ``max_attempts``."""

    async def lag(self) -> tuple[int, int, float]:
        """Return jobs waiting, jobs held, and the age of the oldest one waiting in seconds."""

    async def rows(self, owner: Owner, model: str, memory_ids: Sequence[UUID]) -> list[Remembered]:
        """Return the live memories among ``memory_ids`` with their vectors."""

    async def put_vectors(self, owner: Owner, vectors: Mapping[UUID, Vector]) -> None:
        """Keep vectors beside their rows."""

    async def mark_indexed(self, owner: Owner, versions: Mapping[UUID, int]) -> None:
        """Note which versions the index holds."""

    async def owners(self, after: Owner | None, limit: int) -> list[Owner]:
        """Return owners in order, beyond ``after``."""

    async def live_page(self, owner: Owner, after: UUID, limit: int) -> list[tuple[UUID, int, int]]:
        """Return (id, version, indexed version) of live memories in id order."""

    async def requeue(self, owner: Owner, memory_ids: Sequence[UUID]) -> None:
        """Take memories as not indexed and queue them."""

    async def erase_left_overs(self, owner: Owner, limit: int) -> int:
        """Erase what tombstones still hold; return how many held something."""

    async def release_held(self) -> int:
        """Queue held jobs anew; return how many."""

    async def state(self) -> IndexState:
        """Return the index's recorded life and model."""

    async def set_state(self, generation: str, model: str) -> None:
        """Record the index's life and model."""

    async def ask_reconcile(self) -> None:
        """Ask the running service to reconcile."""

    async def reconciled(self, report: Mapping[str, int]) -> None:
        """Record a reconciliation's findings."""

    async def report(self) -> dict[str, int]:
        """Return the last reconciliation's findings."""
