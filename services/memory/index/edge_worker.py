"""The worker process around the embedded index: ``python -m services.memory.index.edge_worker``.

The engine holds Python's lock through a whole query, so it has a process of its own and the memory
service's event loop never waits for it. One thread does all the work: the engine is not made for
several writers, and a search takes milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import uvloop

from echomesh.worker.v1 import index_pb2 as pb
from echomesh.worker.v1 import index_pb2_grpc
from services.memory.index.codec import filter_from_proto, point_from_proto, sparse_from_proto
from services.memory.index.edge_shard import EdgeShard
from services.memory.index.payload import Condition, conditions
from services.memory.index.types import NO_FILTER, IndexEntry, IndexHit
from services.runtime.supervisor import socket_from_environment
from services.runtime.worker import Progress, run_worker

T = TypeVar("T")


class IndexWorkerServicer(index_pb2_grpc.IndexWorkerServiceServicer):
    """Runs one shard for its parent, the memory service."""

    def __init__(self, shard: EdgeShard, thread: ThreadPoolExecutor, progress: Progress) -> None:
        self._shard = shard
        self._thread = thread
        self._progress = progress

    async def Upsert(  # noqa: N802 - the name in the contract
        self, request: pb.UpsertRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UpsertResponse:
        """Store points."""
        points = [point_from_proto(message) for message in request.points]
        await self._run(lambda: self._shard.upsert(points))
        return pb.UpsertResponse()

    async def Delete(  # noqa: N802 - the name in the contract
        self, request: pb.DeleteRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DeleteResponse:
        """Delete one user's points."""
        owner = conditions(request.tenant_id, request.user_id, NO_FILTER)
        await self._run(lambda: self._shard.delete(owner, request.ids))
        return pb.DeleteResponse()

    async def Search(  # noqa: N802 - the name in the contract
        self, request: pb.SearchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SearchResponse:
        """Search by the vector that the request carries."""
        where = _where(request.filter)
        hits = await self._run(lambda: self._search(request, where))
        return pb.SearchResponse(hits=[_hit(hit) for hit in hits])

    async def Scroll(  # noqa: N802 - the name in the contract
        self, request: pb.ScrollRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ScrollResponse:
        """List ids and versions in id order."""
        where, after = _where(request.filter), request.after_id or None
        entries = await self._run(lambda: self._shard.scroll(where, after, request.limit))
        return pb.ScrollResponse(points=[_entry(entry) for entry in entries])

    async def Count(  # noqa: N802 - the name in the contract
        self, request: pb.CountRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountResponse:
        """Count one user's points."""
        where = _where(request.filter)
        return pb.CountResponse(count=await self._run(lambda: self._shard.count(where)))

    async def GetGeneration(  # noqa: N802 - the name in the contract
        self, request: pb.GetGenerationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetGenerationResponse:
        """Say which life of the index this is."""
        return pb.GetGenerationResponse(generation=self._shard.generation)

    def _search(self, request: pb.SearchRequest, where: Sequence[Condition]) -> list[IndexHit]:
        match request.WhichOneof("query"):
            case "both":
                both = request.both
                return [
                    *self._dense(both.dense, where, request.limit),
                    *self._sparse(both.sparse, where, request.limit),
                ]
            case "dense":
                return self._dense(request.dense, where, request.limit)
            case _:
                return self._sparse(request.sparse, where, request.limit)

    def _dense(self, packed: bytes, where: Sequence[Condition], limit: int) -> list[IndexHit]:
        return self._shard.search_dense(np.frombuffer(packed, "<f4").tolist(), where, limit)

    def _sparse(
        self, message: pb.SparseVector, where: Sequence[Condition], limit: int
    ) -> list[IndexHit]:
        return self._shard.search_sparse(sparse_from_proto(message), where, limit)

    async def _run(self, work: Callable[[], T]) -> T:
        with self._progress.request():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def serve(folder: Path, dimensions: int, socket: Path) -> None:
    """Open the shard in ``folder`` and serve it on ``socket`` until the parent ends."""
    async with AsyncExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1, "edge-index"))
        loop = asyncio.get_running_loop()
        shard = await loop.run_in_executor(thread, EdgeShard, folder, dimensions)
        stack.callback(lambda: thread.submit(shard.close).result())

        async def register(server: grpc.aio.Server, progress: Progress) -> None:
            servicer = IndexWorkerServicer(shard, thread, progress)
            index_pb2_grpc.add_IndexWorkerServiceServicer_to_server(servicer, server)

        await run_worker(register, socket)


def _where(message: pb.IndexFilter) -> list[Condition]:
    return conditions(message.tenant_id, message.user_id, filter_from_proto(message))


def _hit(hit: IndexHit) -> pb.IndexHit:
    return pb.IndexHit(id=hit.memory_id, version=hit.version, score=hit.score)


def _entry(entry: IndexEntry) -> pb.IndexHit:
    return pb.IndexHit(id=entry.memory_id, version=entry.version)


def main() -> None:
    """Run the worker that the supervisor started."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dimensions", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.folder, arguments.dimensions, socket_from_environment()))


if __name__ == "__main__":
    main()
