"""Corpus statistics: changed in the storing transaction, read by recall."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.memory.corpus import CorpusDelta
from services.memory.model import CorpusNumbers, Owner
from services.runtime.postgres import Connection

# Each part reads the one before it, so that all writers lock in one order: the corpus, which keeps
# other writes of this person out, then what it holds.
_ADD = """
WITH corpus AS (
  INSERT INTO memory.corpora AS c (tenant_id, user_id, documents) VALUES ($1, $2, $3)
  ON CONFLICT (tenant_id, user_id)
  DO UPDATE SET documents = greatest(0, c.documents + excluded.documents) RETURNING true),
spoken AS (
  INSERT INTO memory.speakers AS s (tenant_id, user_id, speaker, memories)
  SELECT $1, $2, x.name, x.change FROM corpus, unnest($4::text[], $5::bigint[]) AS x(name, change)
  ON CONFLICT (tenant_id, user_id, speaker)
  DO UPDATE SET memories = greatest(0, s.memories + excluded.memories))
INSERT INTO memory.terms AS t (tenant_id, user_id, term, df)
SELECT $1, $2, x.term, x.change FROM corpus, unnest($6::text[], $7::bigint[]) AS x(term, change)
ON CONFLICT (tenant_id, user_id, term) DO UPDATE SET df = greatest(0, t.df + excluded.df)"""

_NUMBERS = """
SELECT
  (SELECT documents FROM memory.corpora WHERE tenant_id = $1 AND user_id = $2) AS documents,
  ARRAY(SELECT speaker FROM memory.speakers
    WHERE tenant_id = $1 AND user_id = $2 AND memories > 0
    ORDER BY memories DESC LIMIT $4) AS speakers,
  (SELECT jsonb_object_agg(term, df) FROM memory.terms
    WHERE tenant_id = $1 AND user_id = $2 AND term = ANY($3::text[]) AND df > 0) AS frequencies"""

MAX_SPEAKERS = 256
"""Names looked for in a question: the most talkative ones; a chat has two."""


async def apply(conn: Connection, owner: Owner, delta: CorpusDelta) -> None:
    """Add a write's changes up."""
    await conn.execute(
        _ADD, owner.tenant_id, owner.user_id, delta.documents,
        *delta.sorted_speakers(), *delta.sorted_terms(),
    )  # fmt: skip


async def numbers(conn: Connection, owner: Owner, terms: Sequence[str]) -> CorpusNumbers:
    """Return the corpus' size, its speakers and how many memories hold each of ``terms``."""
    ids = (owner.tenant_id, owner.user_id)
    row: Any = await conn.fetchrow(_NUMBERS, *ids, list(terms), MAX_SPEAKERS)
    return CorpusNumbers(
        documents=row["documents"] or 0,
        document_frequency=json.loads(row["frequencies"] or "{}"),
        speakers=row["speakers"],
    )
