"""The store protocols over a database: each method is one transaction as one owner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg

from services.memory import auditing
from services.memory.model import (
    Appended,
    BeginTurn,
    BegunTurn,
    CompleteTurn,
    Conversation,
    CorpusNumbers,
    Memory,
    MemoryChange,
    Message,
    NewConversation,
    NewMemory,
    NewMessage,
    Owner,
    Remembered,
    Turn,
)
from services.memory.postgres import (
    candidates,
    corpora,
    derived,
    memories,
    messages,
    searching,
    turns,
    writing,
)
from services.memory.postgres.candidates import RowCache
from services.memory.recall import MemoryFilter
from services.runtime.audit import Anchor, AuditEvent, AuditLog
from services.runtime.postgres import Connection, Database

T = TypeVar("T")

WRITE_ATTEMPTS = 3
"""A write that met a twin of itself is run again, and then finds the twin's rows."""


class PostgresStore:
    """Conversations, memories and recall's reads, with the rights of the app role."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._log = AuditLog("memory")
        self._kept = RowCache()

    async def let_old_rows_go(self) -> None:
        """Sweep the kept rows every while, for ever."""
        while True:
            await asyncio.sleep(candidates.SWEEP_S)
            self._kept.shrink()

    async def _as(self, owner: Owner, work: Callable[[Connection], Awaitable[T]]) -> T:
        for _ in range(WRITE_ATTEMPTS - 1):
            try:
                async with self._db.tenant(owner) as conn:
                    return await work(conn)
            except asyncpg.UniqueViolationError:
                continue
        async with self._db.tenant(owner) as conn:
            return await work(conn)

    async def _erased(
        self, owner: Owner, work: Callable[[Connection], Awaitable[tuple[T, AuditEvent | None]]]
    ) -> T:
        """Run what erases, and write the event it returns as the transaction's last step."""

        async def audited(conn: Connection) -> tuple[T, list[Anchor]]:
            result, event = await work(conn)
            events = [event] if event else []
            return result, await self._log.append(conn, owner.tenant_id, events)

        result, written = await self._as(owner, audited)
        self._kept.forget(owner)
        self._log.announce(written)
        return result

    async def create_conversation(self, owner: Owner, new: NewConversation) -> Conversation:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: messages.create_conversation(c, owner, new))

    async def get_conversation(self, owner: Owner, conversation_id: str) -> Conversation:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: messages.get_conversation(c, owner, conversation_id))

    async def list_conversations(
        self,
        owner: Owner,
        metadata: Mapping[str, str],
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Conversation]:
        """See :class:`ConversationStore`."""
        return await self._as(
            owner, lambda c: messages.list_conversations(c, owner, metadata, after, limit)
        )

    async def delete_conversation(self, owner: Owner, conversation_id: str, now: datetime) -> int:
        """See :class:`ConversationStore`."""

        async def work(conn: Connection) -> tuple[int, AuditEvent | None]:
            deleted, fresh = await writing.delete_conversation(conn, owner, conversation_id, now)
            event = auditing.conversation_erased(owner, conversation_id, deleted)
            return deleted, event if fresh else None

        return await self._erased(owner, work)

    async def append_messages(
        self, owner: Owner, conversation_id: str, messages: Sequence[NewMessage], now: datetime
    ) -> Appended:
        """See :class:`ConversationStore`."""
        return await self._as(
            owner, lambda c: writing.append(c, owner, conversation_id, messages, now)
        )

    async def get_message(self, owner: Owner, message_id: UUID) -> Message:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: messages.get_message(c, owner, message_id))

    async def list_messages(
        self, owner: Owner, conversation_id: str, after: int | None, limit: int, descending: bool
    ) -> list[Message]:
        """See :class:`ConversationStore`."""

        async def work(conn: Connection) -> list[Message]:
            await messages.get_conversation(conn, owner, conversation_id)
            return await messages.list_messages(
                conn, owner, conversation_id, after, limit, descending
            )

        return await self._as(owner, work)

    async def begin_turn(self, owner: Owner, new: BeginTurn) -> BegunTurn:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: turns.begin(c, owner, new))

    async def complete_turn(self, owner: Owner, new: CompleteTurn) -> Message:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: turns.complete(c, owner, new))

    async def get_turn(self, owner: Owner, request_id: str) -> Turn:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: turns.get(c, owner, request_id))

    async def get_turn_of(self, owner: Owner, message_id: UUID) -> Turn:
        """See :class:`ConversationStore`."""
        return await self._as(owner, lambda c: turns.get_of(c, owner, message_id))

    async def remember(self, owner: Owner, memories: Sequence[NewMemory]) -> list[Memory]:
        """See :class:`MemoryStore`."""
        return await self._as(owner, lambda c: writing.remember(c, owner, memories))

    async def get_memory(self, owner: Owner, memory_id: UUID) -> Memory:
        """See :class:`MemoryStore`."""
        return await self._as(owner, lambda c: memories.get(c, owner, memory_id))

    async def update_memory(self, owner: Owner, change: MemoryChange) -> Memory:
        """See :class:`MemoryStore`."""
        updated = await self._as(owner, lambda c: memories.update(c, owner, change))
        self._kept.forget(owner)
        return updated

    async def forget_memory(self, owner: Owner, memory_id: UUID, now: datetime) -> None:
        """See :class:`MemoryStore`."""

        async def work(conn: Connection) -> tuple[None, AuditEvent | None]:
            fresh = await memories.forget(conn, owner, memory_id, now)
            return None, auditing.memory_erased(owner, memory_id) if fresh else None

        await self._erased(owner, work)

    async def list_memories(
        self,
        owner: Owner,
        narrowed: MemoryFilter,
        after: tuple[datetime, UUID] | None,
        limit: int,
    ) -> list[Memory]:
        """See :class:`MemoryStore`."""
        return await self._as(
            owner, lambda c: memories.list_memories(c, owner, narrowed, after, limit)
        )

    async def memory_versions(self, owner: Owner, memory_id: UUID) -> list[Memory]:
        """See :class:`MemoryStore`."""
        return await self._as(owner, lambda c: memories.versions(c, owner, memory_id))

    async def index_lag(self, owner: Owner) -> tuple[int, int]:
        """See :class:`MemoryStore`."""

        async def work(conn: Connection) -> tuple[int, int]:
            numbers = await corpora.numbers(conn, owner, [])
            return numbers.documents, await searching.count_pending(conn, owner)

        return await self._as(owner, work)

    async def overview(
        self, owner: Owner, terms: Sequence[str], narrowed: MemoryFilter, pending_limit: int
    ) -> tuple[CorpusNumbers, list[UUID]]:
        """See :class:`RecallStore`."""

        async def work(conn: Connection) -> tuple[CorpusNumbers, list[UUID]]:
            numbers = await corpora.numbers(conn, owner, terms)
            return numbers, await searching.pending_ids(conn, owner, narrowed, pending_limit)

        return await self._as(owner, work)

    async def candidates(
        self,
        owner: Owner,
        model: str,
        memory_ids: Sequence[UUID],
        narrowed: MemoryFilter,
        pending_limit: int,
    ) -> tuple[list[Remembered], list[Remembered], list[Remembered]]:
        """See :class:`RecallStore`."""
        return await self._as(
            owner,
            lambda c: candidates.read(
                c, self._kept, owner, model, memory_ids, narrowed, pending_limit
            ),
        )

    async def keyword(
        self,
        owner: Owner,
        weights: Mapping[str, float],
        narrowed: MemoryFilter,
        row_cap: int,
        limit: int,
    ) -> list[UUID]:
        """See :class:`RecallStore`."""
        return await self._as(
            owner, lambda c: searching.keyword(c, owner, weights, narrowed, row_cap, limit)
        )

    async def texts_at(
        self, owner: Owner, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], str]:
        """See :class:`RecallStore`."""
        return await self._as(owner, lambda c: messages.texts_at(c, owner, places))

    async def queue_repair(self, owner: Owner, memory_ids: Sequence[UUID]) -> None:
        """See :class:`RecallStore`."""
        await self._as(owner, lambda c: derived.requeue(c, owner, memory_ids))
