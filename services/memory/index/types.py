"""What the index holds and finds. The index is derived: Postgres can always make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.memory.recall.filters import MemoryFilter
from services.memory.recall.types import Kind, Role, SparseVector

NO_FILTER = MemoryFilter()


@dataclass(frozen=True, slots=True)
class IndexPoint:
    """A memory as the index keeps it: two vectors and what can be filtered on, no text.

    Attributes:
        memory_id: The memory's uuid as text; the point's id.
        version: The row's version; a hit of another version is stale.
        dense: fp16 little-endian unit vector, or ``None`` while it is not embedded yet.
        sparse: From :func:`services.memory.recall.document_vector`.

    """

    tenant_id: str
    user_id: str
    memory_id: str
    version: int
    conversation_id: str | None
    seq: int | None
    speaker: str
    role: Role
    kind: Kind
    time: datetime
    dense: bytes | None
    sparse: SparseVector
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexHit:
    """A point that was found: join it to the row of this id and version or drop it."""

    memory_id: str
    version: int
    score: float


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Id and version of a stored point, for reconciliation."""

    memory_id: str
    version: int


class VectorIndex(Protocol):
    """Dense and sparse search in one user's memories.

    Tenant and user are arguments of every call and a condition of every query: there is no way to
    ask across users. All calls are idempotent and raise ``AppError`` (UNAVAILABLE) when the index
    is away.
    """

    async def upsert(self, points: Sequence[IndexPoint]) -> None:
        """Store points, replacing those of the same id; durable on return."""

    async def delete(self, tenant_id: str, user_id: str, memory_ids: Sequence[str]) -> None:
        """Delete this user's points of these ids; unknown ids and other users' are left alone."""

    async def search_dense(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """Return the ``limit`` points with the highest cosine, best first."""

    async def search_sparse(
        self,
        tenant_id: str,
        user_id: str,
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """Return the ``limit`` points with the highest dot product above 0, best first."""

    async def search_both(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """Return what :meth:`search_dense` finds, then what :meth:`search_sparse` finds."""

    async def scroll(
        self, tenant_id: str, user_id: str, after: str | None, limit: int
    ) -> list[IndexEntry]:
        """Return up to ``limit`` entries in ascending id order, from just after ``after``."""

    async def count(self, tenant_id: str, user_id: str) -> int:
        """Return the exact number of this user's points."""

    async def generation(self) -> str:
        """Return the id of this index's life: another one means it was made anew and is empty."""

    async def close(self) -> None:
        """Release connections and processes; the index cannot be used afterwards."""
