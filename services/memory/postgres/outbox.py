"""The outbox: which memories' index entries must be brought in step. Ids only.

See docs/decisions/0004-outbox.md for why this is a table of our own.
"""

# ruff: noqa: S608 - statements are put together from constants of our own, values are parameters
from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.memory.model import Job, Owner
from services.runtime import tracing
from services.runtime.postgres import Connection

CHANNEL = "memory_outbox"
"""NOTIFY channel that wakes runners when a transaction with new jobs commits."""

_QUEUE = f"""
WITH queued AS (INSERT INTO memory.outbox AS o (tenant_id, user_id, memory_id, traceparent)
  SELECT $1, $2, x.id, $4 FROM unnest($3::uuid[]) AS x(id) ORDER BY x.id
  ON CONFLICT (tenant_id, user_id, memory_id) DO UPDATE
  SET generation = o.generation + 1, attempts = 0, held = false, queued_at = now(),
    traceparent = coalesce(excluded.traceparent, o.traceparent),
    run_at = CASE WHEN o.leased THEN o.run_at ELSE now() END)
SELECT pg_notify('{CHANNEL}', '')"""
# The bound is part of the text: for one that it does not know, Postgres expects a tenth of all
# jobs, and after a large import read them all for each batch.
_CLAIM = """
UPDATE memory.outbox o SET leased = true, run_at = now() + $1 * interval '1 second'
FROM (SELECT tenant_id, user_id, memory_id FROM memory.outbox
  WHERE NOT held AND run_at <= now() ORDER BY run_at LIMIT {limit} FOR UPDATE SKIP LOCKED) due
WHERE (o.tenant_id, o.user_id, o.memory_id) = (due.tenant_id, due.user_id, due.memory_id)
RETURNING o.tenant_id, o.user_id, o.memory_id, o.generation, o.attempts, o.traceparent"""
_THESE = """
(SELECT o.tenant_id, o.user_id, o.memory_id, x.generation FROM memory.outbox o
  JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) AS x(tenant, usr, id, generation)
    ON (o.tenant_id, o.user_id, o.memory_id) = (x.tenant, x.usr, x.id)
  ORDER BY o.tenant_id, o.user_id, o.memory_id FOR UPDATE OF o SKIP LOCKED) these
WHERE (o.tenant_id, o.user_id, o.memory_id) = (these.tenant_id, these.user_id, these.memory_id)"""
_DONE = f"DELETE FROM memory.outbox o USING {_THESE} AND o.generation = these.generation"
_CHANGED = f"""
UPDATE memory.outbox o SET leased = false, run_at = now()
FROM {_THESE} AND o.generation <> these.generation"""
_HOLD_ON = f"UPDATE memory.outbox o SET run_at = now() + $5 * interval '1 second' FROM {_THESE}"
_HAND_BACK = f"UPDATE memory.outbox o SET leased = false, run_at = now() FROM {_THESE}"
_FAILED = f"""
UPDATE memory.outbox o SET leased = false, attempts = o.attempts + 1, held = o.attempts + 1 >= $5,
  run_at = now() + least(300, power(2, o.attempts)) * interval '1 second' FROM {_THESE}"""
_LAG = """
SELECT count(*) FILTER (WHERE NOT held) AS waiting, count(*) FILTER (WHERE held) AS held,
  coalesce(extract(epoch FROM now() - min(queued_at) FILTER (WHERE NOT held)), 0) AS oldest_s
FROM memory.outbox"""


async def queue(conn: Connection, owner: Owner, memory_ids: Sequence[UUID]) -> None:
    """Queue memories in the caller's transaction; one queued already is run again.

    A job keeps the span that queued it when background work, which has none, queues it again.
    """
    if not memory_ids:
        return
    ids = sorted(memory_ids)
    await conn.execute(_QUEUE, owner.tenant_id, owner.user_id, ids, tracing.traceparent())


async def claim(conn: Connection, limit: int, lease_s: float) -> list[Job]:
    """Take up to ``limit`` due jobs; unless held on to, they are due again after ``lease_s``."""
    found = await conn.fetch(_CLAIM.format(limit=int(limit)), lease_s)
    return [
        Job(
            owner=Owner(row["tenant_id"], row["user_id"]),
            memory_id=row["memory_id"],
            generation=row["generation"],
            attempts=row["attempts"],
            traceparent=row["traceparent"],
        )
        for row in found
    ]


async def done(conn: Connection, jobs: Sequence[Job]) -> None:
    """Remove jobs; one whose memory changed again meanwhile is due again at once."""
    columns = _columns(jobs)
    await conn.execute(_DONE, *columns)
    await conn.execute(_CHANGED, *columns)


async def hold(conn: Connection, jobs: Sequence[Job], lease_s: float) -> None:
    """Keep hold of running jobs for another ``lease_s`` seconds."""
    await conn.execute(_HOLD_ON, *_columns(jobs), lease_s)


async def hand_back(conn: Connection, jobs: Sequence[Job]) -> None:
    """Make jobs due again, unharmed: what they need was away."""
    await conn.execute(_HAND_BACK, *_columns(jobs))


async def failed(conn: Connection, jobs: Sequence[Job], max_attempts: int) -> None:
    """Count an attempt and back off; after ``max_attempts`` a job is held for reconcile."""
    await conn.execute(_FAILED, *_columns(jobs), max_attempts)


async def lag(conn: Connection) -> tuple[int, int, float]:
    """Return jobs waiting, jobs held and the age in seconds of the oldest one waiting."""
    row: Any = await conn.fetchrow(_LAG)
    return row["waiting"], row["held"], float(row["oldest_s"])


def _columns(jobs: Sequence[Job]) -> tuple[list[str], list[str], list[UUID], list[int]]:
    return (
        [job.owner.tenant_id for job in jobs],
        [job.owner.user_id for job in jobs],
        [job.memory_id for job in jobs],
        [job.generation for job in jobs],
    )
