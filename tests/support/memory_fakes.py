"""Stand-ins for the memory service's helpers: an embedder and an index that can go away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.memory.embedder import DocumentVector, QueryVector
from services.memory.index import NO_FILTER, IndexEntry, IndexHit, IndexPoint
from services.memory.recall import MemoryFilter, SparseVector
from services.memory.recall.text import terms
from services.runtime.errors import unavailable

DIMENSIONS = 32


def embed(text: str) -> np.ndarray:
    """A unit vector in which texts with words in common are near each other."""
    vector = np.full(DIMENSIONS, 1e-3)
    for term in terms(text):
        vector[int(hashlib.sha256(term.encode()).hexdigest(), 16) % DIMENSIONS] += 1.0
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


@dataclass
class FakeEmbedder:
    """Embeds by words; `away` makes every call fail."""

    away: bool = False
    name: str = "fake-1"
    embedded: list[str] = field(default_factory=list)

    async def model(self) -> str:
        """The model's name."""
        self._check()
        return self.name

    async def query(self, text: str) -> QueryVector:
        """A question's vector."""
        self._check()
        return QueryVector(self.name, embed(text).tolist(), None)

    async def documents(self, texts: Sequence[str]) -> list[DocumentVector]:
        """Documents' vectors."""
        self._check()
        self.embedded += texts
        return [
            DocumentVector(self.name, DIMENSIONS, embed(text).astype("<f2").tobytes(), None)
            for text in texts
        ]

    def _check(self) -> None:
        if self.away:
            raise unavailable("embeddings")


@dataclass
class FakeIndex:
    """Points in a dict; `away` makes every call fail."""

    away: bool = False
    life: str = "life-1"
    points: dict[tuple[str, str, str], IndexPoint] = field(default_factory=dict)

    async def upsert(self, points: Sequence[IndexPoint]) -> None:
        """Store points."""
        self._check()
        for point in points:
            self.points[point.tenant_id, point.user_id, point.memory_id] = point

    async def delete(self, tenant_id: str, user_id: str, memory_ids: Sequence[str]) -> None:
        """Delete points."""
        self._check()
        for memory_id in memory_ids:
            self.points.pop((tenant_id, user_id, memory_id), None)

    async def search_dense(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """All points by cosine."""
        self._check()
        query = np.asarray(vector)
        scores = [
            (float(np.frombuffer(p.dense or b"", "<f2") @ query), p)
            for p in self._of(tenant_id, user_id)
            if p.dense is not None
        ]
        return _hits(scores, limit)

    async def search_sparse(
        self,
        tenant_id: str,
        user_id: str,
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """All points by dot product above 0."""
        self._check()
        wanted = dict(zip(sparse.indices, sparse.values, strict=True))
        scores = []
        for point in self._of(tenant_id, user_id):
            pairs = zip(point.sparse.indices, point.sparse.values, strict=True)
            score = sum(wanted.get(index, 0.0) * value for index, value in pairs)
            if score > 0:
                scores.append((score, point))
        return _hits(scores, limit)

    async def search_both(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """Both searches."""
        dense = await self.search_dense(tenant_id, user_id, vector, limit, filters)
        return dense + await self.search_sparse(tenant_id, user_id, sparse, limit, filters)

    async def scroll(
        self, tenant_id: str, user_id: str, after: str | None, limit: int
    ) -> list[IndexEntry]:
        """Entries in id order."""
        self._check()
        found = sorted(self._of(tenant_id, user_id), key=lambda p: p.memory_id)
        later = [p for p in found if after is None or p.memory_id > after]
        return [IndexEntry(p.memory_id, p.version) for p in later[:limit]]

    async def count(self, tenant_id: str, user_id: str) -> int:
        """How many points a user has."""
        return len(self._of(tenant_id, user_id))

    async def generation(self) -> str:
        """The index's life."""
        self._check()
        return self.life

    async def close(self) -> None:
        """Nothing to close."""

    def _of(self, tenant_id: str, user_id: str) -> list[IndexPoint]:
        owner = (tenant_id, user_id)
        return [p for p in self.points.values() if (p.tenant_id, p.user_id) == owner]

    def _check(self) -> None:
        if self.away:
            raise unavailable("index")


def _hits(scores: list[tuple[float, IndexPoint]], limit: int) -> list[IndexHit]:
    ordered = sorted(scores, key=lambda pair: -pair[0])[:limit]
    return [IndexHit(point.memory_id, point.version, score) for score, point in ordered]
