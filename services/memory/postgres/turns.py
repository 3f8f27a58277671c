"""The two writes of a chat turn, one transaction each."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from services.memory import turns
from services.memory.ids import (
    body_hash,
    keyed_message_id,
    reused,
    turn_message_id,
    turn_of,
    turn_reply_id,
)
from services.memory.model import (
    BeginTurn,
    BegunTurn,
    CompleteTurn,
    MemoryChange,
    Message,
    NewMessage,
    Owner,
    Turn,
)
from services.memory.postgres import memories, messages, rows
from services.memory.remember import episode
from services.runtime.errors import not_found
from services.runtime.postgres import Connection

_START = """
INSERT INTO memory.turns (tenant_id, user_id, request_id, conversation_id, body_sha256, message_id)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING epoch"""
_LOCK = """
SELECT conversation_id, body_sha256, message_id, epoch, reply_id
FROM memory.turns WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3 FOR UPDATE"""
# By itself: joined to what waited for the lock it would be read as it was before the wait.
_FINISH_REASON = """
SELECT finish_reason FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND message_id = $3"""
_TAKE_OVER = """
UPDATE memory.turns SET epoch = epoch + 1
WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3 RETURNING epoch"""
_REPLACE = """
UPDATE memory.messages SET text = $4, said_at = $5, finish_reason = $6, model = $7, metadata = $8
WHERE tenant_id = $1 AND user_id = $2 AND message_id = $3"""
_FINISH = """
UPDATE memory.turns SET reply_id = $4, explanation = $5
WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3"""
_GET = """
SELECT t.request_id, t.conversation_id, t.message_id, t.reply_id,
  coalesce(t.explanation, ''::bytea) AS explanation, m.said_at AS replied_at
FROM memory.turns t LEFT JOIN memory.messages m
  ON m.tenant_id = t.tenant_id AND m.user_id = t.user_id AND m.message_id = t.reply_id
WHERE t.tenant_id = $1 AND t.user_id = $2 AND t.request_id = $3"""
_REQUEST_OF = """
SELECT request_id FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND message_id = $3"""

# Two turns that begin with one key at once: the second one finds what the first has stored.
_LOCK_KEY = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_KEYED = """
SELECT message_id FROM memory.messages
WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3"""
_NEWEST_ANSWERING = """
SELECT t.request_id FROM memory.turns t JOIN memory.messages m
  ON m.tenant_id = t.tenant_id AND m.user_id = t.user_id AND m.message_id = t.message_id
WHERE t.tenant_id = $1 AND t.user_id = $2 AND m.message_id = $3
  AND t.conversation_id = m.conversation_id
ORDER BY t.created_at DESC LIMIT 1"""


async def begin(conn: Connection, owner: Owner, new: BeginTurn) -> BegunTurn:
    """Store the user's message, or take over or replay the turn that did."""
    stored = await _stored_before(conn, owner, new)
    message_id = stored.message_id if stored else new.message_id
    epoch = await conn.fetchval(
        _START, owner.tenant_id, owner.user_id, new.request_id, new.conversation_id,
        new.body_sha256, message_id,
    )  # fmt: skip
    if epoch is None:
        return await _begin_again(conn, owner, new)
    await _check_parent(conn, owner, new)
    message = stored or await _store(conn, owner, new.conversation_id, _message_of(new))
    recent = await messages.before(conn, owner, message, new.recent_limit)
    return BegunTurn(message=message, epoch=epoch, reply=None, recent=recent)


async def _stored_before(conn: Connection, owner: Owner, new: BeginTurn) -> Message | None:
    """Return the message that carries the turn's key already; None where it is new.

    One that was forgotten since stays without its text. Raises REQUEST_ID_REUSED if the key named
    another text.
    """
    if not new.message_key:
        return None
    request_id = keyed_message_id(new.conversation_id, new.message_key)
    await conn.execute(_LOCK_KEY, f"{owner.tenant_id}/{owner.user_id}/{request_id}")
    found = await conn.fetchval(_KEYED, owner.tenant_id, owner.user_id, request_id)
    if found is None:
        return None
    message = await messages.get_message(conn, owner, found)
    if message.text not in (new.text, ""):
        raise reused({"message_key": new.message_key})
    return message


async def _begin_again(conn: Connection, owner: Owner, new: BeginTurn) -> BegunTurn:
    turn = await _locked(conn, owner, new.request_id)
    if turn is None:
        raise not_found("turn")
    decision = turns.begin_again(turn, new.body_sha256)
    message = await messages.get_message(conn, owner, turn.message_id)
    epoch, reply = turn.epoch, None
    if decision is turns.Begin.TAKE_OVER:
        epoch = await conn.fetchval(_TAKE_OVER, owner.tenant_id, owner.user_id, new.request_id)
    elif turn.reply_id is not None:
        reply = await messages.get_message(conn, owner, turn.reply_id)
    recent = await messages.before(conn, owner, message, new.recent_limit)
    return BegunTurn(message=message, epoch=epoch, reply=reply, recent=recent)


async def complete(conn: Connection, owner: Owner, new: CompleteTurn) -> Message:
    """Store the reply of a turn if its writer still runs it."""
    turn = await _locked(conn, owner, new.request_id)
    if turn is None:
        raise not_found("turn")
    decision = turns.complete(turn, new.epoch)
    if turn.reply_id is not None:
        cut_off = await messages.get_message(conn, owner, turn.reply_id)
        if decision is turns.Complete.REPEAT:
            return cut_off
        reply = await _replace(conn, owner, turn.conversation_id, cut_off, new)
    else:
        reply = await _store(conn, owner, turn.conversation_id, _reply_of(new, turn.message_id))
    await conn.execute(
        _FINISH, owner.tenant_id, owner.user_id, new.request_id, reply.message_id, new.explanation
    )
    return reply


async def get(conn: Connection, owner: Owner, request_id: str) -> Turn:
    """Return the turn of a request; raises NOT_FOUND."""
    row = await conn.fetchrow(_GET, owner.tenant_id, owner.user_id, request_id)
    if row is None:
        raise not_found("turn")
    return Turn(**row)


async def get_of(conn: Connection, owner: Owner, message_id: UUID) -> Turn:
    """Return the turn that a message began or a reply ended; raises NOT_FOUND."""
    stored = await conn.fetchval(_REQUEST_OF, owner.tenant_id, owner.user_id, message_id)
    request_id = turn_of(stored or "") or await conn.fetchval(
        _NEWEST_ANSWERING, owner.tenant_id, owner.user_id, message_id
    )
    if not request_id:
        raise not_found("turn")
    return await get(conn, owner, request_id)


async def _replace(
    conn: Connection, owner: Owner, conversation_id: str, cut_off: Message, new: CompleteTurn
) -> Message:
    """Put the reply in the place of one that was cut off; its memory follows."""
    await conn.execute(
        _REPLACE, owner.tenant_id, owner.user_id, cut_off.message_id, new.text, new.now,
        new.finish_reason, new.model, rows.to_json(new.metadata),
    )  # fmt: skip
    if cut_off.text and new.text:
        request_id = f"{turn_reply_id(new.request_id)}:{new.epoch}"
        digest = body_hash({"text": new.text})
        change = MemoryChange(
            request_id, digest, cut_off.message_id, 0, new.now, text=new.text, said_at=new.now
        )
        await memories.update(conn, owner, change)
    elif new.text:
        whole = replace(_reply_of(new, cut_off.message_id), message_id=cut_off.message_id)
        await memories.insert(conn, owner, [episode(whole, conversation_id, cut_off.seq)])
    return await messages.get_message(conn, owner, cut_off.message_id)


async def _locked(conn: Connection, owner: Owner, request_id: str) -> turns.TurnState | None:
    row = await conn.fetchrow(_LOCK, owner.tenant_id, owner.user_id, request_id)
    if row is None:
        return None
    reason = row["reply_id"] and await conn.fetchval(
        _FINISH_REASON, owner.tenant_id, owner.user_id, row["reply_id"]
    )
    return turns.TurnState(**row, finish_reason=reason or "")


async def _check_parent(conn: Connection, owner: Owner, new: BeginTurn) -> None:
    """Raise NOT_FOUND unless the message to branch from is in this conversation."""
    if new.parent_message_id is None:
        return
    parent = await messages.get_message(conn, owner, new.parent_message_id)
    if parent.conversation_id != new.conversation_id:
        raise not_found("message")


async def _store(conn: Connection, owner: Owner, conversation_id: str, new: NewMessage) -> Message:
    message = await messages.insert_next(conn, owner, conversation_id, new)
    if new.text:
        await memories.insert(conn, owner, [episode(new, conversation_id, message.seq)])
    return message


def _message_of(new: BeginTurn) -> NewMessage:
    return NewMessage(
        message_id=new.message_id,
        request_id=keyed_message_id(new.conversation_id, new.message_key)
        if new.message_key
        else turn_message_id(new.request_id),
        role="user",
        speaker=new.speaker,
        text=new.text,
        said_at=new.now,
        metadata=new.metadata,
        parent_message_id=new.parent_message_id,
    )


def _reply_of(new: CompleteTurn, in_reply_to: UUID) -> NewMessage:
    return NewMessage(
        message_id=new.reply_id,
        request_id=turn_reply_id(new.request_id),
        role="assistant",
        speaker=new.speaker,
        text=new.text,
        said_at=new.now,
        metadata=new.metadata,
        in_reply_to=in_reply_to,
        finish_reason=new.finish_reason,
        model=new.model,
    )
