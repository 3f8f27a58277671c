"""MemoryService: converts and calls the store and recall."""

# ruff: noqa: N802 - methods are named as their RPCs
from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from echomesh.memory.v1 import memory_pb2 as pb
from echomesh.memory.v1 import memory_pb2_grpc as pb_grpc
from services.memory import changes, convert, ids, paging
from services.memory.model import Memory, NewMemory
from services.memory.recall import document_terms
from services.memory.recaller import Question, Recaller
from services.memory.store import MemoryStore
from services.runtime.clock import Clock

DEFAULT_HITS = 10
"""Hits of a recall that names no limit."""


class MemoryServicer(pb_grpc.MemoryServiceServicer):
    """Memories of the calling user."""

    def __init__(
        self,
        store: MemoryStore,
        recaller: Recaller,
        clock: Clock,
        new_id: Callable[[], UUID],
        on_write: Callable[[], None],
    ) -> None:
        self._store = store
        self._recaller = recaller
        self._clock = clock
        self._new_id = new_id
        self._on_write = on_write

    async def Remember(self, request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
        """Store a memory."""
        convert.check_text(request)
        stored = await self._remember([request.memory])
        return pb.RememberResponse(memory=convert.memory_message(stored[0]))

    async def BatchRemember(
        self, request: pb.BatchRememberRequest, context: Any
    ) -> pb.BatchRememberResponse:
        """Store memories, all or none."""
        convert.check_text(request)
        changes.check_distinct([memory.request_id for memory in request.memories])
        stored = await self._remember(request.memories)
        return pb.BatchRememberResponse(memories=[convert.memory_message(row) for row in stored])

    async def _remember(self, memories: Sequence[pb.NewMemory]) -> list[Memory]:
        now = self._clock.now()
        new = [self._new_memory(memory, now) for memory in memories]
        stored = await self._store.remember(convert.owner(), new)
        self._on_write()
        return stored

    def _new_memory(self, memory: pb.NewMemory, now: datetime) -> NewMemory:
        said_at = convert.time(memory, "time", now)
        given = [memory.kind, memory.text, memory.speaker, memory.time.ToNanoseconds()]
        return NewMemory(
            memory_id=self._new_id(),
            kind=convert.kind(memory.kind, "fact"),
            text=memory.text,
            speaker=memory.speaker or "user",
            role="user",
            said_at=said_at,
            terms=document_terms(memory.text, said_at),
            metadata=dict(memory.metadata),
            request_id=memory.request_id,
            body_sha256=ids.body_hash(
                {"given": given, "metadata": sorted(memory.metadata.items())}
            ),
        )

    async def Recall(self, request: pb.RecallRequest, context: Any) -> pb.RecallResponse:
        """Return what is relevant to a query, best first."""
        convert.check_text(request)
        question = Question(
            text=request.query,
            limit=request.limit or DEFAULT_HITS,
            narrowed=convert.memory_filter(request.filter),
            asker=request.asker or None,
            excluded=frozenset(request.exclude_message_ids),
            recency_weight=request.recency_weight,
            half_life=convert.half_life(request),
            keyword_only=request.keyword_only,
        )
        return convert.recall_response(await self._recaller.recall(convert.owner(), question))

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Any) -> pb.GetMemoryResponse:
        """Return a memory."""
        memory_id = convert.uuid(request.memory_id, "memory_id")
        found = await self._store.get_memory(convert.owner(), memory_id)
        return pb.GetMemoryResponse(memory=convert.memory_message(found))

    async def UpdateMemory(
        self, request: pb.UpdateMemoryRequest, context: Any
    ) -> pb.UpdateMemoryResponse:
        """Correct a memory."""
        convert.check_text(request)
        change = changes.from_request(request, self._clock.now())
        updated = await self._store.update_memory(convert.owner(), change)
        self._on_write()
        return pb.UpdateMemoryResponse(memory=convert.memory_message(updated))

    async def ForgetMemory(
        self, request: pb.ForgetMemoryRequest, context: Any
    ) -> pb.ForgetMemoryResponse:
        """Erase a memory for good."""
        memory_id = convert.uuid(request.memory_id, "memory_id")
        await self._store.forget_memory(convert.owner(), memory_id, self._clock.now())
        self._on_write()
        return pb.ForgetMemoryResponse()

    async def ListMemories(
        self, request: pb.ListMemoriesRequest, context: Any
    ) -> pb.ListMemoriesResponse:
        """Return a page of memories, newest first."""
        convert.check_text(request)
        narrowed = convert.memory_filter(request.filter)
        query = ["memories", request.filter.SerializeToString(deterministic=True).hex()]
        after = paging.decode(request.page_token, query, datetime.fromisoformat, UUID)
        size = paging.page_size(request.page_size)
        rows = await self._store.list_memories(convert.owner(), narrowed, after, size + 1)
        page, more = paging.cut(rows, size, lambda row: row.text)
        token = ""
        if more:
            last = page[-1]
            token = paging.encode(query, [last.said_at.isoformat(), str(last.memory_id)])
        return pb.ListMemoriesResponse(
            memories=[convert.memory_message(row) for row in page], next_page_token=token
        )

    async def ListMemoryVersions(
        self, request: pb.ListMemoryVersionsRequest, context: Any
    ) -> pb.ListMemoryVersionsResponse:
        """Return a memory's versions, newest first."""
        memory_id = convert.uuid(request.memory_id, "memory_id")
        rows = await self._store.memory_versions(convert.owner(), memory_id)
        return pb.ListMemoryVersionsResponse(versions=[convert.memory_message(row) for row in rows])

    async def GetIndexStatus(
        self, request: pb.GetIndexStatusRequest, context: Any
    ) -> pb.GetIndexStatusResponse:
        """Return how far the index is behind for this user."""
        memories, pending = await self._store.index_lag(convert.owner())
        return pb.GetIndexStatusResponse(memories=memories, pending=pending)
