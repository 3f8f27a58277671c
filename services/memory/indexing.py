"""Bringing the index in step with the table: one batch of memories at a time, idempotent.

The row is read when the job runs, so an old job does the newest thing. Vectors are kept beside
the rows before they go to the index: an index that was lost is filled again without embedding.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from uuid import UUID

from services.memory.embedder import Embedder
from services.memory.index import IndexPoint, VectorIndex
from services.memory.model import Job, Owner, Remembered, Vector
from services.memory.recall import document_vector
from services.memory.store import JobStore
from services.runtime.errors import unavailable

EMBED_BATCH = 32
"""Texts embedded in one call: a fraction of a second of work for one thread."""

POINTS_PER_SLICE = 64
"""Points made between two looks at the event loop, about a millisecond of work."""


_Rows: TypeAlias = dict[Owner, Sequence[Remembered]]


class Indexer:
    """Embeds what has no vector yet, stores points, and deletes those whose memory is gone."""

    def __init__(self, store: JobStore, embedder: Embedder, index: VectorIndex) -> None:
        self._store = store
        self._embedder = embedder
        self._index = index

    async def bring_in_step(self, jobs: Sequence[Job], model: str) -> None:
        """Do ``jobs``, of whomever they are, with vectors of ``model``.

        Raises AppError when something needed is away; all may then be done again.
        """
        found: _Rows = {}
        for owner, memory_ids in _by_owner(jobs).items():
            found[owner] = await self._store.rows(owner, model, memory_ids)
            await self._delete_gone(owner, memory_ids, found[owner])
        vectors = await self._with_vectors(found, model)
        points = await _points(found, vectors)
        if points:
            await self._index.upsert(points)
        for owner, rows in found.items():
            versions = {row.memory.memory_id: row.memory.version for row in rows}
            if versions:
                await self._store.mark_indexed(owner, versions)

    async def _delete_gone(
        self, owner: Owner, memory_ids: Sequence[UUID], rows: Sequence[Remembered]
    ) -> None:
        gone = set(memory_ids) - {row.memory.memory_id for row in rows}
        if gone:
            ids = [str(memory_id) for memory_id in sorted(gone)]
            await self._index.delete(owner.tenant_id, owner.user_id, ids)

    async def _with_vectors(self, found: _Rows, model: str) -> dict[UUID, Vector]:
        """Return every row's vector; those that had none are embedded together and kept."""
        rows = [(owner, row) for owner, rows in found.items() for row in rows]
        vectors = {row.memory.memory_id: row.vector for _, row in rows if row.vector is not None}
        bare = [(owner, row) for owner, row in rows if row.vector is None]
        for start in range(0, len(bare), EMBED_BATCH):
            batch = bare[start : start + EMBED_BATCH]
            fresh = await self._embed([row for _, row in batch], model)
            for owner in dict.fromkeys(owner for owner, _ in batch):
                own = (row.memory.memory_id for whose, row in batch if whose == owner)
                await self._store.put_vectors(owner, {key: fresh[key] for key in own})
            vectors |= fresh
        return vectors

    async def _embed(self, rows: Sequence[Remembered], model: str) -> dict[UUID, Vector]:
        found = await self._embedder.documents([row.memory.text for row in rows])
        if any(made.model != model for made in found):
            raise unavailable("embeddings")  # a new model came into force: start again with it
        return {
            row.memory.memory_id: Vector(
                model=made.model,
                version=row.memory.version,
                dimensions=made.dimensions,
                vector=made.vector,
                token_vectors=made.token_vectors,
            )
            for row, made in zip(rows, found, strict=True)
        }


def _by_owner(jobs: Sequence[Job]) -> dict[Owner, list[UUID]]:
    grouped: dict[Owner, list[UUID]] = defaultdict(list)
    for job in jobs:
        grouped[job.owner].append(job.memory_id)
    return grouped


async def _points(found: _Rows, vectors: Mapping[UUID, Vector]) -> list[IndexPoint]:
    rows = [(owner, row) for owner, rows in found.items() for row in rows]
    points: list[IndexPoint] = []
    for start in range(0, len(rows), POINTS_PER_SLICE):
        part = rows[start : start + POINTS_PER_SLICE]
        points += [_point(owner, row, vectors[row.memory.memory_id]) for owner, row in part]
        await asyncio.sleep(0)  # let calls through between slices
    return points


def _point(owner: Owner, row: Remembered, vector: Vector) -> IndexPoint:
    memory = row.memory
    return IndexPoint(
        tenant_id=owner.tenant_id,
        user_id=owner.user_id,
        memory_id=str(memory.memory_id),
        version=memory.version,
        conversation_id=memory.conversation_id,
        seq=memory.seq,
        speaker=memory.speaker,
        role=memory.role,
        kind=memory.kind,
        time=memory.said_at,
        dense=vector.vector,
        sparse=document_vector(row.terms),
        metadata=memory.metadata,
    )
