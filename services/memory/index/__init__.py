"""The vector index behind one protocol: an embedded one in a worker process, or a Qdrant server."""

from __future__ import annotations

from services.memory.index.types import (
    NO_FILTER,
    IndexEntry,
    IndexHit,
    IndexPoint,
    VectorIndex,
)

__all__ = ["NO_FILTER", "IndexEntry", "IndexHit", "IndexPoint", "VectorIndex"]
