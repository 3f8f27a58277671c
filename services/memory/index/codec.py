"""Index types to and from the messages of ``echomesh.worker.v1.IndexWorkerService``."""

from __future__ import annotations

import numpy as np

from echomesh.worker.v1 import index_pb2 as pb
from services.memory.index.payload import microseconds, moment, require_owner
from services.memory.index.types import IndexPoint
from services.memory.recall.filters import MemoryFilter
from services.memory.recall.types import Kind, Role, SparseVector

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}
_KINDS: dict[str, Kind] = {
    "episodic": "episodic",
    "fact": "fact",
    "preference": "preference",
    "summary": "summary",
}


def point_to_proto(point: IndexPoint) -> pb.IndexPoint:
    """Return the message for a point; its fp16 vector travels as float32."""
    dense = b"" if point.dense is None else _widened(point.dense)
    return pb.IndexPoint(
        id=point.memory_id,
        version=point.version,
        tenant_id=point.tenant_id,
        user_id=point.user_id,
        conversation_id=point.conversation_id or "",
        seq=point.seq or 0,
        speaker=point.speaker,
        role=point.role,
        kind=point.kind,
        time_us=microseconds(point.time),
        metadata=point.metadata,
        dense=dense,
        sparse=sparse_to_proto(point.sparse),
    )


def point_from_proto(message: pb.IndexPoint) -> IndexPoint:
    """Return the point of a message."""
    return IndexPoint(
        tenant_id=message.tenant_id,
        user_id=message.user_id,
        memory_id=message.id,
        version=message.version,
        conversation_id=message.conversation_id or None,
        seq=message.seq or None,
        speaker=message.speaker,
        role=_ROLES[message.role],
        kind=_KINDS[message.kind],
        time=moment(message.time_us),
        dense=_narrowed(message.dense) if message.dense else None,
        sparse=sparse_from_proto(message.sparse),
        metadata=dict(message.metadata),
    )


def filter_to_proto(tenant_id: str, user_id: str, filters: MemoryFilter) -> pb.IndexFilter:
    """Return the message for one user's filter; tenant and user must not be empty."""
    require_owner(tenant_id, user_id)
    return pb.IndexFilter(
        tenant_id=tenant_id,
        user_id=user_id,
        since_us=None if filters.since is None else microseconds(filters.since),
        until_us=None if filters.until is None else microseconds(filters.until),
        conversation_id=filters.conversation_id,
        speaker=filters.speaker,
        kinds=sorted(filters.kinds),
        metadata=filters.metadata,
    )


def filter_from_proto(message: pb.IndexFilter) -> MemoryFilter:
    """Return the filter of a message; whose memories it is about stays in the message."""
    return MemoryFilter(
        since=moment(message.since_us) if message.HasField("since_us") else None,
        until=moment(message.until_us) if message.HasField("until_us") else None,
        conversation_id=message.conversation_id if message.HasField("conversation_id") else None,
        speaker=message.speaker if message.HasField("speaker") else None,
        kinds=frozenset(_KINDS[kind] for kind in message.kinds),
        metadata=dict(message.metadata),
    )


def sparse_to_proto(sparse: SparseVector) -> pb.SparseVector:
    """Return the message for a sparse vector."""
    return pb.SparseVector(indices=sparse.indices, values=sparse.values)


def sparse_from_proto(message: pb.SparseVector) -> SparseVector:
    """Return the sparse vector of a message."""
    return SparseVector(indices=tuple(message.indices), values=tuple(message.values))


def _widened(fp16: bytes) -> bytes:
    return np.frombuffer(fp16, "<f2").astype("<f4").tobytes()


def _narrowed(fp32: bytes) -> bytes:
    return np.frombuffer(fp32, "<f4").astype("<f2").tobytes()
