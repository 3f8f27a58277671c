"""Memories: stored, corrected, erased and listed, with statistics and outbox kept in step."""

# ruff: noqa: S608 - statements are put together from constants of our own, values are parameters
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.memory.corpus import CorpusDelta
from services.memory.ids import check_same_body
from services.memory.model import Memory, MemoryChange, NewMemory, Owner
from services.memory.postgres import corpora, derived, outbox, rows
from services.memory.postgres.filters import filter_sql
from services.memory.recall import MemoryFilter, document_terms
from services.runtime.errors import AppError, Reason, not_found
from services.runtime.postgres import Connection

_INSERT = """
INSERT INTO memory.memories (tenant_id, user_id, memory_id, kind, text, speaker, role, said_at,
  metadata, message_id, conversation_id, seq, terms, term_counts, request_id, body_sha256)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"""
_BY_REQUEST = f"""
SELECT {rows.MEMORY_COLUMNS}, m.request_id, m.body_sha256, m.forgotten_at FROM memory.memories m
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.request_id = ANY($3::text[])"""
_GET = f"""
SELECT {rows.MEMORY_COLUMNS}, m.terms, m.term_counts FROM memory.memories m
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.memory_id = $3 AND m.forgotten_at IS NULL"""
_KEEP_VERSION = """
INSERT INTO memory.memory_versions (tenant_id, user_id, memory_id, version, kind, text, said_at,
  metadata, updated_at, request_id, body_sha256)
SELECT tenant_id, user_id, memory_id, version, kind, text, said_at, metadata, updated_at, $4, $5
FROM memory.memories WHERE tenant_id = $1 AND user_id = $2 AND memory_id = $3"""
_UPDATE = f"""
UPDATE memory.memories m SET version = m.version + 1, kind = $4, text = $5, said_at = $6,
  metadata = $7, terms = $8, term_counts = $9, updated_at = $10
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.memory_id = $3
RETURNING {rows.MEMORY_COLUMNS}"""
_UPDATED_BY = """
SELECT memory_id, body_sha256 FROM memory.memory_versions
WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3"""
_VERSIONS = """
SELECT version, kind, text, said_at, metadata, updated_at FROM memory.memory_versions
WHERE tenant_id = $1 AND user_id = $2 AND memory_id = $3 ORDER BY version DESC LIMIT $4"""
_LOCK = """
SELECT memory_id, speaker, terms FROM memory.memories
WHERE tenant_id = $1 AND user_id = $2 AND memory_id = ANY($3::uuid[]) AND forgotten_at IS NULL
ORDER BY memory_id FOR UPDATE"""
_ERASE = """
UPDATE memory.memories SET version = version + 1, text = '', metadata = '{}', terms = '{}',
  term_counts = '{}', speaker = '', body_sha256 = NULL, forgotten_at = $4, updated_at = $4
WHERE tenant_id = $1 AND user_id = $2 AND memory_id = ANY($3::uuid[])"""
_WAS_FORGOTTEN = """
SELECT true FROM memory.memories
WHERE tenant_id = $1 AND user_id = $2 AND memory_id = $3 AND forgotten_at IS NOT NULL"""
_LEFT_OVER = """
SELECT EXISTS (SELECT FROM memory.memory_versions v WHERE v.tenant_id = $1 AND v.user_id = $2
    AND v.memory_id = ANY($3::uuid[]))
  OR EXISTS (SELECT FROM memory.memory_vectors v WHERE v.tenant_id = $1 AND v.user_id = $2
    AND v.memory_id = ANY($3::uuid[]))
  OR EXISTS (SELECT FROM memory.messages m WHERE m.tenant_id = $1 AND m.user_id = $2
    AND m.message_id = ANY($3::uuid[]) AND (m.text <> '' OR m.body_sha256 IS NOT NULL))"""
MAX_VERSIONS = 500
"""Versions listed at once."""

MAX_SMALLINT = 32767
"""A term's count is kept in two bytes; BM25 has long saturated there."""


async def insert(conn: Connection, owner: Owner, memories: Sequence[NewMemory]) -> None:
    """Store memories, count their terms and queue them for the index; all in this transaction."""
    if not memories:
        return
    await conn.executemany(
        _INSERT,
        [
            (owner.tenant_id, owner.user_id, m.memory_id, m.kind, m.text, m.speaker, m.role,
             m.said_at, rows.to_json(m.metadata), m.message_id, m.conversation_id, m.seq,
             *_term_columns(m.terms), m.request_id, m.body_sha256)
            for m in memories
        ],
    )  # fmt: skip
    delta = CorpusDelta()
    for new in memories:
        delta.add(new.terms, new.speaker)
    await corpora.apply(conn, owner, delta)
    await outbox.queue(conn, owner, [m.memory_id for m in memories])


def _term_columns(terms: Mapping[str, int]) -> tuple[list[str], list[int]]:
    return list(terms), [min(count, MAX_SMALLINT) for count in terms.values()]


async def remembered_before(
    conn: Connection, owner: Owner, memories: Sequence[NewMemory]
) -> dict[str, Memory]:
    """Return by request id the memories stored already; raises REQUEST_ID_REUSED."""
    hashes = {m.request_id: m.body_sha256 or b"" for m in memories}
    found = await conn.fetch(_BY_REQUEST, owner.tenant_id, owner.user_id, list(hashes))
    for row in found:
        if row["forgotten_at"] is None:
            request_id = row["request_id"]
            check_same_body(row["body_sha256"], hashes[request_id], request_id)
    return {row["request_id"]: rows.memory(row) for row in found}


async def get(conn: Connection, owner: Owner, memory_id: UUID) -> Memory:
    """Return a live memory or raise NOT_FOUND."""
    return rows.memory(await _live_row(conn, owner, memory_id))


async def _live_row(conn: Connection, owner: Owner, memory_id: UUID, *, lock: bool = False) -> Any:
    sql = f"{_GET} FOR UPDATE" if lock else _GET
    row = await conn.fetchrow(sql, owner.tenant_id, owner.user_id, memory_id)
    if row is None:
        raise not_found("memory")
    return row


async def update(conn: Connection, owner: Owner, change: MemoryChange) -> Memory:
    """Correct a memory, keeping what it said before; the same request again changes nothing."""
    ids = (owner.tenant_id, owner.user_id, change.memory_id)
    old = await _live_row(conn, owner, change.memory_id, lock=True)
    done = await conn.fetchrow(_UPDATED_BY, owner.tenant_id, owner.user_id, change.request_id)
    if done is not None:
        check_same_body(done["body_sha256"], change.body_sha256)
        return rows.memory(old)
    _check_version(old["version"], change.expected_version)
    before = rows.memory(old)
    said_at = change.said_at or before.said_at
    text = before.text if change.text is None else change.text
    metadata = before.metadata if change.metadata is None else change.metadata
    terms = document_terms(text, said_at)
    await conn.execute(_KEEP_VERSION, *ids, change.request_id, change.body_sha256)
    row: Any = await conn.fetchrow(
        _UPDATE, *ids, change.kind or before.kind, text, said_at, rows.to_json(metadata),
        *_term_columns(terms), change.now,
    )  # fmt: skip
    delta = CorpusDelta()
    delta.remove(dict.fromkeys(old["terms"], 1), before.speaker)
    delta.add(terms, before.speaker)
    await corpora.apply(conn, owner, delta)
    await outbox.queue(conn, owner, [change.memory_id])
    return rows.memory(row)


def _check_version(version: int, expected: int) -> None:
    if expected not in (0, version):
        raise AppError(
            Reason.VERSION_CONFLICT,
            "the memory changed since it was read",
            metadata={"version": str(version)},
        )


async def versions(conn: Connection, owner: Owner, memory_id: UUID) -> list[Memory]:
    """Return a memory's versions, the present one first."""
    now = await get(conn, owner, memory_id)
    found = await conn.fetch(_VERSIONS, owner.tenant_id, owner.user_id, memory_id, MAX_VERSIONS - 1)
    return [now, *(rows.memory(dict(_present(now), **row)) for row in found)]


def _present(memory: Memory) -> dict[str, object]:
    return {name: getattr(memory, name) for name in Memory.__slots__}


async def forget(conn: Connection, owner: Owner, memory_id: UUID, now: datetime) -> bool:
    """Erase a memory, its history, its vectors and its message's text; False: it was before."""
    if await erase(conn, owner, [memory_id], now):
        return True
    if not await conn.fetchval(_WAS_FORGOTTEN, owner.tenant_id, owner.user_id, memory_id):
        raise not_found("memory")
    return False


async def erase(conn: Connection, owner: Owner, memory_ids: Sequence[UUID], now: datetime) -> int:
    """Turn live memories into tombstones and return how many; checks that no text is left."""
    ids = (owner.tenant_id, owner.user_id)
    live = await conn.fetch(_LOCK, *ids, sorted(memory_ids))
    if not live:
        return 0
    erased = [row["memory_id"] for row in live]
    await conn.execute(_ERASE, *ids, erased, now)
    await derived.erase_parts(conn, owner, erased)
    delta = CorpusDelta()
    for row in live:
        delta.remove(dict.fromkeys(row["terms"], 1), row["speaker"])
    await corpora.apply(conn, owner, delta)
    await outbox.queue(conn, owner, erased)
    if await conn.fetchval(_LEFT_OVER, *ids, erased):
        raise AppError(Reason.INTERNAL, "an erased memory left text behind")
    return len(erased)


async def list_memories(
    conn: Connection,
    owner: Owner,
    narrowed: MemoryFilter,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Memory]:
    """Return live memories, newest first, that come after the key ``after``."""
    conditions, values = filter_sql(narrowed, first=3)
    if after is not None:
        values += [*after]
        conditions += f" AND (m.said_at, m.memory_id) < (${len(values) + 1}, ${len(values) + 2})"
    found = await conn.fetch(
        f"SELECT {rows.MEMORY_COLUMNS} FROM memory.memories m WHERE m.tenant_id = $1 "
        f"AND m.user_id = $2 AND m.forgotten_at IS NULL{conditions} "
        f"ORDER BY m.said_at DESC, m.memory_id DESC LIMIT {int(limit)}",
        owner.tenant_id, owner.user_id, *values,
    )  # fmt: skip
    return [rows.memory(row) for row in found]
