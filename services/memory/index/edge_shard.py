"""The embedded index itself: one folder, one process, blocking calls (runs inside the worker).

The folder is derived data. Whatever cannot be opened is put aside and made anew, empty, under a new
generation; the service sees that and fills it from Postgres, which keeps every vector.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from services.memory.index.payload import (
    DENSE,
    FORMAT,
    KEYWORD_FIELDS,
    SPARSE,
    TIME_FIELD,
    USER_FIELD,
    Between,
    Condition,
    payload_of,
)
from services.memory.index.types import IndexEntry, IndexHit, IndexPoint
from services.memory.recall.types import SparseVector
from services.runtime.logs import get_logger

OPTIMIZE_EVERY_POINTS = 5000
"""Changed points after which segments are put in order, which holds up all else meanwhile."""

MAX_SEGMENT_KB = 19_000
"""Of dense vectors, about 25,000 points: putting segments in order takes at most a second however
many there are, where one segment of all would be written anew each time (4 s at 100k)."""

ATTEMPTS_TO_OPEN = 2
"""A folder that ended this many processes while it was opened counts as broken."""

MARKER = "echomesh.json"
OPENING = "echomesh.opening"

MARKER_POINT = uuid.UUID(int=0)
"""The first point ever stored, of nobody: a shard that has lost it has lost others too."""

_VERSION_ONLY = ["version"]
_IN_USE = "WouldBlock"


class FolderInUseError(Exception):
    """Another process has this folder open."""


class EdgeShard:
    """A qdrant-edge shard with exact search inside one user's points.

    Args:
        folder: Where the shard lives; made if missing. One process at a time.
        dimensions: Of the dense vectors.

    Raises:
        FolderInUseError: If another process has the folder open.

    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._changed = 0
        self._shard, self.generation = _open(folder, dimensions)

    def upsert(self, points: Sequence[IndexPoint]) -> None:
        """Store points, replacing those of the same id; in the write-ahead log on return."""
        if not points:
            return
        self._shard.update(
            edge.UpdateOperation.upsert_points([_to_edge(point) for point in points])
        )
        self._note_changes(len(points))

    def delete(self, owner: Sequence[Condition], memory_ids: Sequence[str]) -> None:
        """Delete the points of these ids that meet ``owner``."""
        if not memory_ids:
            return
        ids = edge.HasIdCondition({uuid.UUID(memory_id) for memory_id in memory_ids})
        where = edge.Filter(must=[*_clauses(owner), ids])
        self._shard.update(edge.UpdateOperation.delete_points_by_filter(where))
        self._note_changes(len(memory_ids))

    def search_dense(
        self, vector: Sequence[float], where: Sequence[Condition], limit: int
    ) -> list[IndexHit]:
        """Return the points with the highest cosine, best first."""
        return self._search(edge.Query.Nearest(list(vector), using=DENSE), where, limit)

    def search_sparse(
        self, sparse: SparseVector, where: Sequence[Condition], limit: int
    ) -> list[IndexHit]:
        """Return the points with the highest dot product above 0, best first."""
        if not sparse.indices:
            return []
        hits = self._search(edge.Query.Nearest(_sparse(sparse), using=SPARSE), where, limit)
        return [hit for hit in hits if hit.score > 0]

    def scroll(self, where: Sequence[Condition], after: str | None, limit: int) -> list[IndexEntry]:
        """Return entries in ascending id order, from just after ``after``."""
        offset = uuid.UUID(int=min(uuid.UUID(after).int + 1, 2**128 - 1)) if after else None
        request = edge.ScrollRequest(
            offset=offset, limit=limit, filter=_filter(where), with_payload=_VERSION_ONLY
        )
        records, _ = self._shard.scroll(request)
        found = (IndexEntry(str(record.id), _version(record.payload)) for record in records)
        return [entry for entry in found if entry.memory_id != after]

    def count(self, where: Sequence[Condition]) -> int:
        """Return the exact number of points."""
        return int(self._shard.count(edge.CountRequest(exact=True, filter=_filter(where))))

    def close(self) -> None:
        """Flush everything to the folder and let go of it."""
        self._shard.flush()
        self._shard.close()

    def _search(self, query: Any, where: Sequence[Condition], limit: int) -> list[IndexHit]:
        request = edge.QueryRequest(
            limit=limit, query=query, filter=_filter(where), with_payload=_VERSION_ONLY
        )
        points = self._shard.query(request)
        return [IndexHit(str(p.id), _version(p.payload), float(p.score)) for p in points]

    def _note_changes(self, points: int) -> None:
        self._changed += points
        if self._changed >= OPTIMIZE_EVERY_POINTS:
            self._changed = 0
            self._shard.optimize()
            self._shard.flush()


def _open(folder: Path, dimensions: int) -> tuple[Any, str]:
    marker = _read_marker(folder)
    if marker is not None and marker.get("dimensions") == dimensions:
        shard = _load(folder)
        if shard is not None:
            return shard, str(marker["generation"])
    return _make_anew(folder, dimensions)


def _load(folder: Path) -> Any | None:
    """Open an existing shard; ``None`` if it is broken, even so that opening ends the process."""
    opening = folder / OPENING
    attempts = int(opening.stat().st_size) if opening.exists() else 0
    if attempts >= ATTEMPTS_TO_OPEN:
        return None
    opening.write_bytes(b"." * (attempts + 1))
    try:
        shard = edge.EdgeShard.load(str(folder))
        whole = bool(shard.retrieve([MARKER_POINT], with_payload=False, with_vector=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a Rust panic is no Exception
        opening.unlink()
        if _IN_USE in str(error):
            raise FolderInUseError(str(folder)) from error
        get_logger().warning("index_folder_broken", folder=str(folder), error=str(error))
        return None
    opening.unlink()
    if whole:
        return shard
    shard.close()
    return None


def _make_anew(folder: Path, dimensions: int) -> tuple[Any, str]:
    """Put what is there aside (one copy at most) and start an empty shard."""
    if folder.exists():
        broken = folder.with_name(folder.name + ".broken")
        shutil.rmtree(broken, ignore_errors=True)
        folder.rename(broken)
    folder.mkdir(parents=True, mode=0o700)
    shard = edge.EdgeShard.create(str(folder), _config(dimensions))
    for field in KEYWORD_FIELDS:
        shard.update(edge.UpdateOperation.create_field_index(field, edge.KeywordIndexParams()))
    user = edge.KeywordIndexParams(is_tenant=True)
    shard.update(edge.UpdateOperation.create_field_index(USER_FIELD, user))
    times = edge.IntegerIndexParams(lookup=False, range=True)
    shard.update(edge.UpdateOperation.create_field_index(TIME_FIELD, times))
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(MARKER_POINT, {}, {})]))
    shard.flush()
    return shard, _write_marker(folder, dimensions)


def _config(dimensions: int) -> Any:
    """Return a configuration without a graph: a user's points are few enough to compare all."""
    dense = edge.EdgeVectorParams(
        size=dimensions,
        distance=edge.Distance.Dot,
        datatype=edge.VectorStorageDatatype.Float16,
    )
    exact = edge.HnswIndexConfig(m=0, ef_construct=16, full_scan_threshold=10, payload_m=0)
    return edge.EdgeConfig(
        vectors={DENSE: dense},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams()},
        hnsw_config=exact,
        optimizers=edge.EdgeOptimizersConfig(max_segment_size=MAX_SEGMENT_KB),
        wal_enabled=True,
    )


def _read_marker(folder: Path) -> Mapping[str, Any] | None:
    """Return what the folder says of itself; ``None`` if it is not a finished one of ours."""
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(marker, dict) and marker.get("format") == FORMAT and "generation" in marker
    return marker if known else None


def _write_marker(folder: Path, dimensions: int) -> str:
    generation = str(uuid.uuid4())
    marker = {"format": FORMAT, "dimensions": dimensions, "generation": generation}
    (folder / MARKER).write_text(json.dumps(marker))
    return generation


def _to_edge(point: IndexPoint) -> Any:
    vectors: dict[str, Any] = {SPARSE: _sparse(point.sparse)} if point.sparse.indices else {}
    if point.dense is not None:
        vectors[DENSE] = np.frombuffer(point.dense, "<f2").astype(np.float32).tolist()
    return edge.Point(uuid.UUID(point.memory_id), vectors, payload_of(point))


def _sparse(sparse: SparseVector) -> Any:
    return edge.SparseVector(indices=list(sparse.indices), values=list(sparse.values))


def _filter(where: Sequence[Condition]) -> Any:
    return edge.Filter(must=_clauses(where))


def _clauses(where: Sequence[Condition]) -> list[Any]:
    return [_clause(condition) for condition in where]


def _clause(condition: Condition) -> Any:
    if isinstance(condition, Between):
        span = edge.RangeFloat(gte=condition.low, lt=condition.high)
        return edge.FieldCondition(key=condition.key, range=span)
    if len(condition.values) == 1:  # compared without a set: half the time of a search
        return edge.FieldCondition(key=condition.key, match=edge.MatchValue(condition.values[0]))
    return edge.FieldCondition(key=condition.key, match=edge.MatchAny(list(condition.values)))


def _version(payload: Mapping[str, Any] | None) -> int:
    return int((payload or {}).get("version", 0))
