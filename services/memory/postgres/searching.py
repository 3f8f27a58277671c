"""What recall reads: which memories live, rows with vectors, what waits, keyword search."""

# ruff: noqa: S608 - statements are put together from constants of our own, values are parameters
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from services.memory.model import Head, Owner, Remembered
from services.memory.postgres import rows
from services.memory.postgres.filters import filter_sql
from services.memory.recall import MemoryFilter
from services.runtime.postgres import Connection

_LIVE = "m.tenant_id = $1 AND m.user_id = $2 AND m.forgotten_at IS NULL"
# Looked up one by one, each by the primary key: from a table that grew since it was last analysed,
# Postgres takes a person's rows for one, and then any index that begins with the person will do; it
# read all of them for each id. Only the primary key gives the order asked for here.
_MEMORY = """
CROSS JOIN LATERAL (SELECT * FROM memory.memories r WHERE r.tenant_id = $1 AND r.user_id = $2
  AND r.memory_id BETWEEN {id} AND {id} ORDER BY r.memory_id LIMIT 1) m"""
_VECTOR = """
LEFT JOIN LATERAL (SELECT * FROM memory.memory_vectors v WHERE v.tenant_id = $1
  AND v.user_id = $2 AND v.memory_id = m.memory_id AND v.model = $3 LIMIT 1) v ON true"""
_BY_ID = f"""
SELECT {rows.REMEMBERED_COLUMNS} FROM (SELECT DISTINCT unnest($4::uuid[]) AS id) a
{_MEMORY.format(id="a.id")} {_VECTOR} WHERE m.forgotten_at IS NULL"""
_HEAD = "m.memory_id, m.version, m.updated_at, m.indexed_version"
_PLACED_HEAD = f"{_HEAD}, m.conversation_id, m.seq"
_HEADS = f"""
WITH named AS (SELECT {_PLACED_HEAD} FROM (SELECT DISTINCT unnest($3::uuid[]) AS id) a
  {_MEMORY.format(id="a.id")} WHERE m.forgotten_at IS NULL),
waiting AS (SELECT {_PLACED_HEAD} FROM memory.memories m
  WHERE {_LIVE} AND m.indexed_version <> m.version{{conditions}}
  ORDER BY m.said_at DESC LIMIT {{limit}}),
places AS (SELECT conversation_id, seq + 1 AS seq FROM named
  UNION SELECT conversation_id, seq + 1 FROM waiting)
SELECT {_HEAD}, false AS pending, false AS after FROM named m
UNION ALL SELECT {_HEAD}, true, false FROM waiting m
UNION ALL SELECT {_HEAD}, false, true FROM places p
CROSS JOIN LATERAL (SELECT * FROM memory.memories m WHERE {_LIVE}
  AND m.conversation_id BETWEEN p.conversation_id AND p.conversation_id
  AND m.seq BETWEEN p.seq AND p.seq ORDER BY m.conversation_id, m.seq LIMIT 1) m"""
_PENDING_IDS = f"""
SELECT m.memory_id FROM memory.memories m WHERE {_LIVE} AND m.indexed_version <> m.version"""
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


async def heads(
    conn: Connection,
    owner: Owner,
    memory_ids: Sequence[UUID],
    narrowed: MemoryFilter,
    pending_limit: int,
) -> list[Head]:
    """Return the heads of live ``memory_ids``, of the newest pending ones, of the turns after both.

    Pending are those that the index does not hold in their version. One memory may come in each
    of the three ways.
    """
    conditions, values = filter_sql(narrowed, first=4)
    found = await conn.fetch(
        _HEADS.format(conditions=conditions, limit=int(pending_limit)),
        owner.tenant_id, owner.user_id, list(memory_ids), *values,
    )  # fmt: skip
    return [_head(row) for row in found]


def _head(row: Any) -> Head:
    memory_id, version, updated_at, indexed_version, pending, after = row
    return Head(memory_id, (version, updated_at), indexed_version, pending, after)


async def pending_ids(
    conn: Connection, owner: Owner, narrowed: MemoryFilter, limit: int
) -> list[UUID]:
    """Return the ids of the newest live memories that the index does not hold as they are."""
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
