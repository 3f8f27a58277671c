"""What recall reads: rows with vectors, turns beside them, rows not indexed yet, keyword search."""

# ruff: noqa: S608 - statements are put together from constants of our own, values are parameters
from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from services.memory.model import Owner, Remembered
from services.memory.postgres import rows
from services.memory.postgres.filters import filter_sql
from services.memory.recall import MemoryFilter
from services.runtime.postgres import Connection

_FROM = """
FROM memory.memories m LEFT JOIN memory.memory_vectors v ON v.tenant_id = m.tenant_id
  AND v.user_id = m.user_id AND v.memory_id = m.memory_id AND v.model = $3
WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.forgotten_at IS NULL"""
_BY_ID = f"SELECT {rows.REMEMBERED_COLUMNS} {_FROM} AND m.memory_id = ANY($4::uuid[])"
_AT = f"""
SELECT {rows.REMEMBERED_COLUMNS} FROM unnest($4::text[], $5::bigint[]) AS a(conversation_id, seq)
CROSS JOIN LATERAL (SELECT * FROM memory.memories m WHERE m.tenant_id = $1 AND m.user_id = $2
  AND m.conversation_id = a.conversation_id AND m.seq = a.seq AND m.forgotten_at IS NULL LIMIT 1) m
LEFT JOIN memory.memory_vectors v ON v.tenant_id = $1 AND v.user_id = $2
  AND v.memory_id = m.memory_id AND v.model = $3"""
_PENDING = f"SELECT {rows.REMEMBERED_COLUMNS} {_FROM} AND m.indexed_version <> m.version"
_PENDING_IDS = """
SELECT m.memory_id FROM memory.memories m WHERE m.tenant_id = $1 AND m.user_id = $2
  AND m.forgotten_at IS NULL AND m.indexed_version <> m.version"""
_KEYWORD = """
SELECT m.memory_id FROM (
  SELECT m.memory_id, m.terms, m.term_counts, m.said_at FROM memory.memories m
  WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.forgotten_at IS NULL{conditions}
  ORDER BY m.said_at DESC LIMIT $5) m
CROSS JOIN LATERAL (
  SELECT sum(q.weight * d.count * 1.9::float8 / (d.count + 0.9::float8)) AS score
  FROM unnest(m.terms, m.term_counts) AS d(term, count)
  JOIN unnest($3::text[], $4::float8[]) AS q(term, weight) USING (term)) s
WHERE m.terms && $3::text[]
ORDER BY s.score DESC, m.said_at DESC LIMIT $6"""
_PENDING_COUNT = """
SELECT count(*) FROM memory.memories m WHERE m.tenant_id = $1 AND m.user_id = $2
  AND m.indexed_version <> m.version AND m.forgotten_at IS NULL"""


async def by_id(
    conn: Connection, owner: Owner, model: str, memory_ids: Sequence[UUID]
) -> list[Remembered]:
    """Return the live memories of ``memory_ids`` with their vectors under ``model``."""
    found = await conn.fetch(_BY_ID, owner.tenant_id, owner.user_id, model, list(memory_ids))
    return await rows.remembered_all(found)


async def at(
    conn: Connection, owner: Owner, model: str, places: Sequence[tuple[str, int]]
) -> list[Remembered]:
    """Return the live memories at (conversation, number) places."""
    if not places:
        return []
    conversations, numbers = zip(*places, strict=True)
    found = await conn.fetch(
        _AT, owner.tenant_id, owner.user_id, model, list(conversations), list(numbers)
    )
    return await rows.remembered_all(found)


async def pending(
    conn: Connection, owner: Owner, model: str, narrowed: MemoryFilter, limit: int
) -> list[Remembered]:
    """Return the newest live memories that the index does not hold in this version."""
    conditions, values = filter_sql(narrowed, first=4)
    found = await conn.fetch(
        f"{_PENDING}{conditions} ORDER BY m.said_at DESC LIMIT {int(limit)}",
        owner.tenant_id, owner.user_id, model, *values,
    )  # fmt: skip
    return await rows.remembered_all(found)


async def pending_ids(
    conn: Connection, owner: Owner, narrowed: MemoryFilter, limit: int
) -> list[UUID]:
    """Return the ids of what :func:`pending` returns."""
    conditions, values = filter_sql(narrowed, first=3)
    found = await conn.fetch(
        f"{_PENDING_IDS}{conditions} ORDER BY m.said_at DESC LIMIT {int(limit)}",
        owner.tenant_id, owner.user_id, *values,
    )  # fmt: skip
    return [row["memory_id"] for row in found]


async def count_pending(conn: Connection, owner: Owner) -> int:
    """Return how many live memories the index does not hold in their present version."""
    return int(await conn.fetchval(_PENDING_COUNT, owner.tenant_id, owner.user_id))


async def keyword(
    conn: Connection,
    owner: Owner,
    weights: Mapping[str, float],
    narrowed: MemoryFilter,
    row_cap: int,
    limit: int,
) -> list[UUID]:
    """Return ids by BM25 (b = 0, k1 = 0.9) over the newest ``row_cap`` memories, best first.

    ``weights`` are the query's terms with their IDF weights.
    """
    if not weights:
        return []
    conditions, values = filter_sql(narrowed, first=7)
    found = await conn.fetch(
        _KEYWORD.format(conditions=conditions),
        owner.tenant_id, owner.user_id, list(weights), list(weights.values()), row_cap, limit,
        *values,
    )  # fmt: skip
    return [row["memory_id"] for row in found]
