"""The embedded index as the memory service sees it: a client of its own worker process."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc
import numpy as np

from echomesh.worker.v1 import index_pb2 as pb
from echomesh.worker.v1.index_pb2_grpc import IndexWorkerServiceStub
from services.memory.index.codec import filter_to_proto, point_to_proto, sparse_to_proto
from services.memory.index.failures import index_failed
from services.memory.index.payload import require_owner
from services.memory.index.types import NO_FILTER, IndexEntry, IndexHit, IndexPoint
from services.memory.recall.filters import MemoryFilter
from services.memory.recall.types import SparseVector
from services.runtime.deadline import remaining_s
from services.runtime.supervisor import WorkerSupervisor, answers_or_away

if TYPE_CHECKING:
    from echomesh.worker.v1.index_pb2_grpc import IndexWorkerServiceAsyncStub

SEARCH_LIMIT_S = 2.0
"""A search takes milliseconds; past this the answer is not worth waiting for."""

WRITE_LIMIT_S = 30.0
"""A batch may have to wait for the segments to be put in order."""

T = TypeVar("T")


def edge_supervisor(folder: Path, dimensions: int, socket_folder: Path) -> WorkerSupervisor:
    """Describe the worker that owns ``folder`` (one process at a time)."""
    module = "services.memory.index.edge_worker"
    argv = [sys.executable, "-m", module, "--folder", str(folder), "--dimensions", str(dimensions)]
    return WorkerSupervisor("index", argv, socket_folder)


class EdgeIndex:
    """A :class:`VectorIndex` over the embedded index; owns the worker it is given."""

    def __init__(self, worker: WorkerSupervisor) -> None:
        self._worker = worker

    async def start(self) -> None:
        """Begin to run the worker; calls raise UNAVAILABLE until it is there."""
        await self._worker.start()

    async def upsert(self, points: Sequence[IndexPoint]) -> None:
        """See :class:`VectorIndex`."""
        request = pb.UpsertRequest(points=[point_to_proto(point) for point in points])
        await self._call(lambda stub: stub.Upsert(request, timeout=WRITE_LIMIT_S))

    async def delete(self, tenant_id: str, user_id: str, memory_ids: Sequence[str]) -> None:
        """See :class:`VectorIndex`."""
        require_owner(tenant_id, user_id)
        request = pb.DeleteRequest(ids=memory_ids, tenant_id=tenant_id, user_id=user_id)
        await self._call(lambda stub: stub.Delete(request, timeout=WRITE_LIMIT_S))

    async def search_dense(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """See :class:`VectorIndex`."""
        where = filter_to_proto(tenant_id, user_id, filters)
        return await self._search(
            pb.SearchRequest(filter=where, limit=limit, dense=_packed(vector))
        )

    async def search_sparse(
        self,
        tenant_id: str,
        user_id: str,
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """See :class:`VectorIndex`."""
        where = filter_to_proto(tenant_id, user_id, filters)
        wanted = sparse_to_proto(sparse)
        return await self._search(pb.SearchRequest(filter=where, limit=limit, sparse=wanted))

    async def search_both(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """See :class:`VectorIndex`; one call to the worker."""
        where = filter_to_proto(tenant_id, user_id, filters)
        wanted = pb.BothVectors(dense=_packed(vector), sparse=sparse_to_proto(sparse))
        return await self._search(pb.SearchRequest(filter=where, limit=limit, both=wanted))

    async def scroll(
        self, tenant_id: str, user_id: str, after: str | None, limit: int
    ) -> list[IndexEntry]:
        """See :class:`VectorIndex`."""
        where = filter_to_proto(tenant_id, user_id, NO_FILTER)
        request = pb.ScrollRequest(filter=where, after_id=after or "", limit=limit)
        page = await self._call(lambda stub: stub.Scroll(request, timeout=WRITE_LIMIT_S))
        return [IndexEntry(point.id, point.version) for point in page.points]

    async def count(self, tenant_id: str, user_id: str) -> int:
        """See :class:`VectorIndex`."""
        request = pb.CountRequest(filter=filter_to_proto(tenant_id, user_id, NO_FILTER))
        answer = await self._call(lambda stub: stub.Count(request, timeout=WRITE_LIMIT_S))
        return int(answer.count)

    async def generation(self) -> str:
        """See :class:`VectorIndex`."""
        request = pb.GetGenerationRequest()
        answer = await self._call(lambda stub: stub.GetGeneration(request, timeout=SEARCH_LIMIT_S))
        return str(answer.generation)

    async def close(self) -> None:
        """See :class:`VectorIndex`."""
        await self._worker.stop()

    async def _search(self, request: pb.SearchRequest) -> list[IndexHit]:
        limit_s = min(SEARCH_LIMIT_S, remaining_s())
        answer = await self._call(lambda stub: stub.Search(request, timeout=limit_s))
        return [IndexHit(hit.id, hit.version, hit.score) for hit in answer.hits]

    async def _call(self, call: Callable[[IndexWorkerServiceAsyncStub], Awaitable[T]]) -> T:
        stub = IndexWorkerServiceStub(self._worker.channel())
        try:
            with answers_or_away(self._worker.name):
                return await call(stub)
        except grpc.aio.AioRpcError as error:
            raise index_failed(error) from error


def _packed(vector: Sequence[float]) -> bytes:
    return np.asarray(vector, "<f4").tobytes()
