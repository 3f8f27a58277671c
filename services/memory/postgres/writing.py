"""Writes that span messages and memories: append, remember, delete a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.memory.appending import sort_out
from services.memory.ids import reused
from services.memory.model import Appended, Memory, NewMemory, NewMessage, Owner
from services.memory.postgres import memories, messages
from services.memory.remember import episode
from services.runtime.errors import not_found
from services.runtime.postgres import Connection

_DELETE_TURNS = """
DELETE FROM memory.turns WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3"""
_LOCK_CONVERSATION = """
SELECT deleted_at, deleted_messages FROM memory.conversations
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 FOR UPDATE"""
_MEMORIES_OF = """
SELECT memory_id FROM memory.memories
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND forgotten_at IS NULL"""
_DELETE_MESSAGES = """
DELETE FROM memory.messages WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3"""
_DELETE_CONVERSATION = """
UPDATE memory.conversations SET deleted_at = $4, deleted_messages = $5, message_count = 0,
  title = '', metadata = '{}'
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3"""


async def append(
    conn: Connection,
    owner: Owner,
    conversation_id: str,
    new: Sequence[NewMessage],
    now: datetime,
) -> Appended:
    """Store messages that were not stored yet, in order, each with its memory.

    Those under a used request id are left out; raises REQUEST_ID_REUSED if that is all of them.
    """
    await messages.reserve_numbers(conn, owner, conversation_id, 0, now)  # locks it
    stored = await messages.stored_before(conn, owner, [m.request_id for m in new])
    sorted_out = sort_out(new, stored)
    if len(sorted_out.refused) == len(new):
        raise reused({})
    if sorted_out.fresh:
        await _store(conn, owner, conversation_id, sorted_out.fresh, now)
    return Appended(sorted_out.ids, len(sorted_out.fresh), sorted_out.refused)


async def _store(
    conn: Connection,
    owner: Owner,
    conversation_id: str,
    fresh: Sequence[NewMessage],
    now: datetime,
) -> None:
    last = await messages.reserve_numbers(conn, owner, conversation_id, len(fresh), now)
    first = last - len(fresh) + 1
    await messages.insert(conn, owner, conversation_id, first, fresh)
    await memories.insert(
        conn, owner, [episode(m, conversation_id, seq) for seq, m in enumerate(fresh, first)]
    )


async def remember(conn: Connection, owner: Owner, new: Sequence[NewMemory]) -> list[Memory]:
    """Store memories that were not stored yet and return all of them in order."""
    known = await memories.remembered_before(conn, owner, new)
    await memories.insert(conn, owner, [m for m in new if m.request_id not in known])
    stored = await memories.remembered_before(conn, owner, new)
    return [stored[str(m.request_id)] for m in new]


async def delete_conversation(
    conn: Connection, owner: Owner, conversation_id: str, now: datetime
) -> tuple[int, bool]:
    """Delete turns, memories and messages; return how many messages and whether it was now.

    Repeated, it answers with the number of the first time.
    """
    ids = (owner.tenant_id, owner.user_id, conversation_id)
    await conn.execute(_DELETE_TURNS, *ids)
    row = await conn.fetchrow(_LOCK_CONVERSATION, *ids)
    if row is None:
        raise not_found("conversation")
    if row["deleted_at"] is not None:
        return int(row["deleted_messages"]), False
    # Once more: one may have been begun before this held the conversation, and its late reply
    # would bring the conversation back.
    await conn.execute(_DELETE_TURNS, *ids)
    found = await conn.fetch(_MEMORIES_OF, *ids)
    await memories.erase(conn, owner, [r["memory_id"] for r in found], now)
    deleted = int((await conn.execute(_DELETE_MESSAGES, *ids)).rpartition(" ")[2])
    await conn.execute(_DELETE_CONVERSATION, *ids, now, deleted)
    return deleted, True
