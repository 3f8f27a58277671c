"""What background jobs read and write: vectors, what is indexed, and the walk over everything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from services.memory.model import IndexState, Owner, Remembered, Vector
from services.memory.postgres import outbox, searching
from services.runtime.postgres import Connection

_PUT_VECTOR = """
INSERT INTO memory.memory_vectors AS v (tenant_id, user_id, memory_id, model, version, dimensions,
  vector, token_vectors)
SELECT $1, $2, m.memory_id, $4, $5, $6, $7, $8 FROM memory.memories m
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.memory_id = $3 AND m.forgotten_at IS NULL
  AND m.version = $5
FOR SHARE
ON CONFLICT (tenant_id, user_id, memory_id, model) DO UPDATE SET version = excluded.version,
  dimensions = excluded.dimensions, vector = excluded.vector,
  token_vectors = excluded.token_vectors WHERE v.version < excluded.version"""
_MARK_INDEXED = """
UPDATE memory.memories SET indexed_version = version
WHERE tenant_id = $1 AND user_id = $2 AND memory_id = $3 AND version = $4"""
_OWNERS = """
SELECT tenant_id, user_id FROM memory.corpora
WHERE $1::text IS NULL OR (tenant_id, user_id) > ($1, $2::text)
ORDER BY tenant_id, user_id LIMIT $3"""
_LIVE_PAGE = """
SELECT memory_id, version, indexed_version FROM memory.memories
WHERE tenant_id = $1 AND user_id = $2 AND forgotten_at IS NULL AND memory_id > $3
ORDER BY memory_id LIMIT $4"""
_RESET_INDEXED = """
UPDATE memory.memories m SET indexed_version = 0
FROM (SELECT memory_id FROM memory.memories
  WHERE tenant_id = $1 AND user_id = $2 AND memory_id = ANY($3::uuid[])
  ORDER BY memory_id FOR UPDATE) these
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.memory_id = these.memory_id"""
_TOMBSTONES_WITH_TEXT = """
SELECT m.memory_id FROM memory.memories m
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.forgotten_at IS NOT NULL AND (
  EXISTS (SELECT FROM memory.memory_versions v WHERE (v.tenant_id, v.user_id, v.memory_id)
    = (m.tenant_id, m.user_id, m.memory_id))
  OR EXISTS (SELECT FROM memory.memory_vectors v WHERE (v.tenant_id, v.user_id, v.memory_id)
    = (m.tenant_id, m.user_id, m.memory_id))
  OR EXISTS (SELECT FROM memory.messages t WHERE (t.tenant_id, t.user_id, t.message_id)
    = (m.tenant_id, m.user_id, m.memory_id) AND (t.text <> '' OR t.body_sha256 IS NOT NULL)))
ORDER BY m.memory_id LIMIT $3"""
_RELEASE_HELD = (
    "UPDATE memory.outbox SET held = false, leased = false, attempts = 0, run_at = now() WHERE held"
)
_STATE = "SELECT generation, model, reconcile_asked_at, reconciled_at FROM memory.index_state"
_SET_STATE = "UPDATE memory.index_state SET generation = $1, model = $2"
_ASK_RECONCILE = "UPDATE memory.index_state SET reconcile_asked_at = clock_timestamp()"
_RECONCILED = """
UPDATE memory.index_state SET reconciled_at = clock_timestamp(), reconcile_report = $1"""
_REPORT = "SELECT reconcile_report FROM memory.index_state"


async def put_vectors(conn: Connection, owner: Owner, vectors: Mapping[UUID, Vector]) -> None:
    """Keep vectors beside their rows; one whose row is gone or newer by now is left out."""
    await conn.executemany(
        _PUT_VECTOR,
        [
            (owner.tenant_id, owner.user_id, memory_id, v.model, v.version, v.dimensions,
             v.vector, v.token_vectors)
            for memory_id, v in sorted(vectors.items())
        ],
    )  # fmt: skip


async def mark_indexed(conn: Connection, owner: Owner, versions: Mapping[UUID, int]) -> None:
    """Note the versions that the index holds now; a row that has moved on is left alone."""
    await conn.executemany(
        _MARK_INDEXED,
        [(owner.tenant_id, owner.user_id, *pair) for pair in sorted(versions.items())],
    )


async def rows(
    conn: Connection, owner: Owner, model: str, memory_ids: Sequence[UUID]
) -> list[Remembered]:
    """Return the live memories of ``memory_ids``; what is missing must leave the index."""
    return await searching.by_id(conn, owner, model, memory_ids)


async def owners(conn: Connection, after: Owner | None, limit: int) -> list[Owner]:
    """Return the owners that follow ``after``: everyone who ever stored something."""
    start = (after.tenant_id, after.user_id) if after else (None, None)
    found = await conn.fetch(_OWNERS, *start, limit)
    return [Owner(row["tenant_id"], row["user_id"]) for row in found]


async def live_page(
    conn: Connection, owner: Owner, after: UUID, limit: int
) -> list[tuple[UUID, int, int]]:
    """Return (id, version, indexed version) of live memories in id order, beyond ``after``."""
    found = await conn.fetch(_LIVE_PAGE, owner.tenant_id, owner.user_id, after, limit)
    return [(row["memory_id"], row["version"], row["indexed_version"]) for row in found]


async def requeue(conn: Connection, owner: Owner, memory_ids: Sequence[UUID]) -> None:
    """Take memories as not indexed and queue them; ids without a row will leave the index."""
    ordered = sorted(memory_ids)
    await conn.execute(_RESET_INDEXED, owner.tenant_id, owner.user_id, ordered)
    await outbox.queue(conn, owner, ordered)


async def erase_left_overs(conn: Connection, owner: Owner, limit: int) -> int:
    """Erase whatever a tombstone still has (it should have nothing) and return how many had."""
    found = await conn.fetch(_TOMBSTONES_WITH_TEXT, owner.tenant_id, owner.user_id, limit)
    ids = [row["memory_id"] for row in found]
    if ids:
        await erase_parts(conn, owner, ids)
        await outbox.queue(conn, owner, ids)
    return len(ids)


async def erase_parts(conn: Connection, owner: Owner, memory_ids: Sequence[UUID]) -> None:
    """Delete history and vectors of memories and empty the messages they came from."""
    for sql in (
        """DELETE FROM memory.memory_versions
        WHERE tenant_id = $1 AND user_id = $2 AND memory_id = ANY($3::uuid[])""",
        """DELETE FROM memory.memory_vectors
        WHERE tenant_id = $1 AND user_id = $2 AND memory_id = ANY($3::uuid[])""",
        """UPDATE memory.messages SET text = '', metadata = '{}', body_sha256 = NULL
        WHERE tenant_id = $1 AND user_id = $2 AND message_id = ANY($3::uuid[])""",
    ):
        await conn.execute(sql, owner.tenant_id, owner.user_id, list(memory_ids))


async def release_held(conn: Connection) -> int:
    """Queue jobs anew that had failed too often, and return how many."""
    return int((await conn.execute(_RELEASE_HELD)).rpartition(" ")[2])


async def state(conn: Connection) -> IndexState:
    """Return which life of the index and which model the rows speak of."""
    row: Any = await conn.fetchrow(_STATE)
    asked, done = row["reconcile_asked_at"], row["reconciled_at"]
    return IndexState(
        generation=row["generation"],
        model=row["model"],
        reconcile_wanted=asked is not None and (done is None or done < asked),
    )


async def set_state(conn: Connection, generation: str, model: str) -> None:
    """Remember the index's life and the model its points were made with."""
    await conn.execute(_SET_STATE, generation, model)


async def ask_reconcile(conn: Connection) -> None:
    """Ask the running service to reconcile."""
    await conn.execute(_ASK_RECONCILE)
    await conn.execute(f"NOTIFY {outbox.CHANNEL}")


async def reconciled(conn: Connection, report: Mapping[str, int]) -> None:
    """Note that a reconciliation has ended, and what it found."""
    await conn.execute(_RECONCILED, json.dumps(dict(report)))


async def report(conn: Connection) -> dict[str, int]:
    """Return what the last reconciliation found."""
    found: dict[str, int] = json.loads(await conn.fetchval(_REPORT))
    return found
