"""Conversations and messages: numbered, stored and listed."""

# ruff: noqa: S608 - statements are put together from constants of our own, values are parameters
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.memory.appending import StoredMessage
from services.memory.ids import check_same_body
from services.memory.model import Conversation, Message, NewConversation, NewMessage, Owner
from services.memory.postgres import rows
from services.runtime.errors import AppError, Reason, not_found
from services.runtime.postgres import Connection

_CREATE = f"""
INSERT INTO memory.conversations AS c (tenant_id, user_id, conversation_id, title, metadata,
  created_at, updated_at, request_id, body_sha256)
VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8)
ON CONFLICT (tenant_id, user_id, conversation_id) DO UPDATE SET title = excluded.title,
  metadata = excluded.metadata, created_at = excluded.created_at,
  updated_at = excluded.updated_at, request_id = excluded.request_id,
  body_sha256 = excluded.body_sha256, deleted_at = NULL, deleted_messages = 0
WHERE c.deleted_at IS NOT NULL
RETURNING {rows.CONVERSATION_COLUMNS}"""
_BY_REQUEST = f"""
SELECT {rows.CONVERSATION_COLUMNS}, deleted_at FROM memory.conversations
WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3"""
_GET = f"""
SELECT {rows.CONVERSATION_COLUMNS} FROM memory.conversations
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND deleted_at IS NULL"""
_LIST = f"""
SELECT {rows.CONVERSATION_COLUMNS} FROM memory.conversations
WHERE tenant_id = $1 AND user_id = $2 AND deleted_at IS NULL AND metadata @> $3::jsonb
  AND ($4::timestamptz IS NULL OR (created_at, conversation_id) < ($4, $5::text))
ORDER BY created_at DESC, conversation_id DESC LIMIT $6"""
_RESERVE = """
INSERT INTO memory.conversations AS c (tenant_id, user_id, conversation_id, created_at,
  updated_at, last_seq, message_count)
VALUES ($1, $2, $3, {now}, {now}, {count}, {count})
ON CONFLICT (tenant_id, user_id, conversation_id) DO UPDATE SET
  last_seq = c.last_seq + excluded.last_seq,
  message_count = c.message_count + excluded.message_count,
  updated_at = excluded.updated_at, deleted_at = NULL, deleted_messages = 0
RETURNING last_seq"""
_RESERVE_MANY = _RESERVE.format(now="$4", count="$5")
_RESERVE_ONE = _RESERVE.format(now="$9", count="1")
_STORED_BEFORE = """
SELECT request_id, message_id, body_sha256, CASE WHEN body_sha256 IS NULL THEN text END AS text
FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND request_id = ANY($3::text[])"""
_INSERT = """
INSERT INTO memory.messages (tenant_id, user_id, conversation_id, message_id, request_id,
  role, speaker, text, said_at, metadata, in_reply_to, parent_message_id, finish_reason, model,
  body_sha256, seq)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, {seq})"""
_INSERT_AT = _INSERT.format(seq="$16")
_INSERT_NEXT = f"""
WITH place AS ({_RESERVE_ONE})
{_INSERT.format(seq="(SELECT last_seq FROM place)")} RETURNING {rows.MESSAGE_COLUMNS}"""
_GET_MESSAGE = f"""
SELECT {rows.MESSAGE_COLUMNS} FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND message_id = $3"""
_LIST_UP = f"""
SELECT {rows.MESSAGE_COLUMNS} FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND seq > $4
ORDER BY seq LIMIT $5"""
_LIST_DOWN = f"""
SELECT {rows.MESSAGE_COLUMNS} FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND seq < $4
ORDER BY seq DESC LIMIT $5"""
_CHAIN = f"""
WITH RECURSIVE chain AS (
  SELECT m.*, 1 AS depth FROM memory.messages m
  WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND message_id = $4
  UNION ALL
  SELECT m.*, c.depth + 1 FROM chain c JOIN memory.messages m
    ON m.tenant_id = $1 AND m.user_id = $2 AND m.conversation_id = $3 AND m.seq < c.seq
    AND CASE WHEN coalesce(c.parent_message_id, c.in_reply_to) IS NULL THEN m.seq = c.seq - 1
      ELSE m.message_id = coalesce(c.parent_message_id, c.in_reply_to) END
  WHERE c.depth < $5)
SELECT {rows.MESSAGE_COLUMNS} FROM chain ORDER BY seq DESC"""
_TEXTS_AT = """
SELECT a.conversation_id, a.seq, m.text
FROM unnest($3::text[], $4::bigint[]) AS a(conversation_id, seq)
CROSS JOIN LATERAL (SELECT t.text FROM memory.messages t WHERE t.tenant_id = $1
  AND t.user_id = $2 AND t.conversation_id = a.conversation_id AND t.seq = a.seq LIMIT 1) m"""
_LAST_SEQ = 2**62
"""Above every sequence number."""


async def create_conversation(conn: Connection, owner: Owner, new: NewConversation) -> Conversation:
    """Store a conversation, also in the place of a deleted one; the same request returns it."""
    made = await _made_before(conn, owner, new)
    if made is not None:
        return made
    row = await conn.fetchrow(
        _CREATE, owner.tenant_id, owner.user_id, new.conversation_id, new.title,
        rows.to_json(new.metadata), new.now, new.request_id, new.body_sha256,
    )  # fmt: skip
    if row is not None:
        return rows.conversation(row)
    twin = await _made_before(conn, owner, new)  # it was faster
    if twin is not None:
        return twin
    text = "the conversation exists already"
    raise AppError(Reason.ALREADY_EXISTS, text, metadata={"type": "conversation"})


async def _made_before(conn: Connection, owner: Owner, new: NewConversation) -> Conversation | None:
    """Return what this request made; raises NOT_FOUND if it was deleted since."""
    row = await conn.fetchrow(_BY_REQUEST, owner.tenant_id, owner.user_id, new.request_id)
    if row is None:
        return None
    check_same_body(row["body_sha256"], new.body_sha256)
    if row["deleted_at"] is not None:
        raise not_found("conversation")
    return rows.conversation(row)


async def get_conversation(conn: Connection, owner: Owner, conversation_id: str) -> Conversation:
    """Return a live conversation or raise NOT_FOUND."""
    row = await conn.fetchrow(_GET, owner.tenant_id, owner.user_id, conversation_id)
    if row is None:
        raise not_found("conversation")
    return rows.conversation(row)


async def list_conversations(
    conn: Connection,
    owner: Owner,
    metadata: Mapping[str, str],
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Conversation]:
    """Return live conversations, newest first, that come after the key ``after``."""
    created_at, conversation_id = after or (None, None)
    found = await conn.fetch(
        _LIST, owner.tenant_id, owner.user_id, rows.to_json(metadata), created_at,
        conversation_id, limit,
    )  # fmt: skip
    return [rows.conversation(row) for row in found]


async def reserve_numbers(
    conn: Connection, owner: Owner, conversation_id: str, count: int, now: datetime
) -> int:
    """Lock the conversation (made on first use), take ``count`` numbers, return the last one."""
    last = await conn.fetchval(
        _RESERVE_MANY, owner.tenant_id, owner.user_id, conversation_id, now, count
    )
    return int(last)


async def stored_before(
    conn: Connection, owner: Owner, request_ids: Sequence[str]
) -> dict[str, StoredMessage]:
    """Return by request id the messages that are stored already."""
    found = await conn.fetch(_STORED_BEFORE, owner.tenant_id, owner.user_id, list(request_ids))
    return {
        row["request_id"]: StoredMessage(row["message_id"], row["body_sha256"], row["text"])
        for row in found
    }


async def insert(
    conn: Connection,
    owner: Owner,
    conversation_id: str,
    first_seq: int,
    messages: Sequence[NewMessage],
) -> None:
    """Store messages under consecutive numbers from ``first_seq``."""
    await conn.executemany(
        _INSERT_AT,
        [
            (*_columns(owner, conversation_id, message), seq)
            for seq, message in enumerate(messages, first_seq)
        ],
    )


async def insert_next(
    conn: Connection, owner: Owner, conversation_id: str, new: NewMessage
) -> Message:
    """Store a message under the next number (the conversation is made on first use)."""
    row: Any = await conn.fetchrow(_INSERT_NEXT, *_columns(owner, conversation_id, new))
    return rows.message(row)


def _columns(owner: Owner, conversation_id: str, m: NewMessage) -> tuple[object, ...]:
    return (
        owner.tenant_id, owner.user_id, conversation_id, m.message_id, m.request_id,
        m.role, m.speaker, m.text, m.said_at, rows.to_json(m.metadata), m.in_reply_to,
        m.parent_message_id, m.finish_reason, m.model, m.body_sha256,
    )  # fmt: skip


async def get_message(conn: Connection, owner: Owner, message_id: UUID) -> Message:
    """Return a message or raise NOT_FOUND."""
    row = await conn.fetchrow(_GET_MESSAGE, owner.tenant_id, owner.user_id, message_id)
    if row is None:
        raise not_found("message")
    return rows.message(row)


async def list_messages(
    conn: Connection,
    owner: Owner,
    conversation_id: str,
    after: int | None,
    limit: int,
    descending: bool,
) -> list[Message]:
    """Return messages in the order of their numbers, those beyond number ``after``."""
    sql, start = (_LIST_DOWN, _LAST_SEQ) if descending else (_LIST_UP, 0)
    position = start if after is None else after
    found = await conn.fetch(sql, owner.tenant_id, owner.user_id, conversation_id, position, limit)
    return [rows.message(row) for row in found]


async def before(conn: Connection, owner: Owner, message: Message, limit: int) -> list[Message]:
    """Return what a prompt for ``message`` may see: earlier messages, in order.

    These are the newest with lower numbers; for a branch, the line that leads to its parent.
    """
    if not limit:
        return []
    ids = (owner.tenant_id, owner.user_id, message.conversation_id)
    if message.parent_message_id is None:
        found = await conn.fetch(_LIST_DOWN, *ids, message.seq, limit)
    else:
        found = await conn.fetch(_CHAIN, *ids, message.parent_message_id, limit)
    return [rows.message(row) for row in reversed(found)]


async def texts_at(
    conn: Connection, owner: Owner, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], str]:
    """Return the texts at (conversation, number) places; those without a message are left out."""
    if not places:
        return {}
    conversations, numbers = zip(*places, strict=True)
    found = await conn.fetch(
        _TEXTS_AT, owner.tenant_id, owner.user_id, list(conversations), list(numbers)
    )
    return {(row["conversation_id"], row["seq"]): row["text"] for row in found}
