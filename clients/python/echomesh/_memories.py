"""The part of the client that is about memories."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from echomesh import _types
from echomesh._calls import Calls
from echomesh.memory.v1 import memory_pb2, memory_pb2_grpc


class Memories(Calls):
    """What is remembered of the user."""

    async def remember(
        self,
        text: str,
        *,
        speaker: str = "",
        time: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> _types.Memory:
        """Store something about the user; acknowledged only once it is durable."""
        memory = memory_pb2.NewMemory(
            request_id=request_id or str(uuid.uuid4()),
            text=text,
            speaker=speaker,
            time=_types.timestamp(time),
            metadata=metadata,
        )
        answer = await self._memory("Remember", memory_pb2.RememberRequest(memory=memory))
        return _types.memory(answer.memory)

    async def recall(
        self,
        query: str,
        *,
        limit: int = 10,
        asker: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        conversation_id: str = "",
        speaker: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> _types.RecallResult:
        """What is relevant to a query, best first; `asker` is the name behind "I" and "my"."""
        filter_ = memory_pb2.MemoryFilter(
            since=_types.timestamp(since),
            until=_types.timestamp(until),
            conversation_id=conversation_id,
            speaker=speaker,
            metadata=metadata,
        )
        request = memory_pb2.RecallRequest(query=query, limit=limit, asker=asker, filter=filter_)
        return _types.recall_result(await self._memory("Recall", request))

    async def correct(self, memory_id: str, text: str, *, request_id: str = "") -> _types.Memory:
        """Replace the text of a memory; the earlier version stays in its history."""
        request = memory_pb2.UpdateMemoryRequest(
            request_id=request_id or str(uuid.uuid4()),
            memory=memory_pb2.Memory(id=memory_id, text=text),
        )
        request.update_mask.paths.append("text")
        return _types.memory((await self._memory("UpdateMemory", request)).memory)

    async def forget(self, memory_id: str) -> None:
        """Erase a memory for good."""
        await self._memory("ForgetMemory", memory_pb2.ForgetMemoryRequest(memory_id=memory_id))

    async def memories(self, *, page_size: int = 100) -> AsyncIterator[_types.Memory]:
        """All memories, newest first; pages are fetched as they are needed."""
        token = ""
        while True:
            request = memory_pb2.ListMemoriesRequest(page_size=page_size, page_token=token)
            answer = await self._memory("ListMemories", request)
            for item in answer.memories:
                yield _types.memory(item)
            token = answer.next_page_token
            if not token:
                return

    async def index_status(self) -> tuple[int, int]:
        """How many memories there are, and how many of them are not indexed yet."""
        answer = await self._memory("GetIndexStatus", memory_pb2.GetIndexStatusRequest())
        return answer.memories, answer.pending

    async def _memory(self, method: str, request: Any) -> Any:
        return await self._unary(memory_pb2_grpc.MemoryServiceStub, method, request)
