"""Runners of one turn that learn late which of them is the newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.routing.v1 import chat_pb2
from tests.support.routing_mesh import FakeMemory, FakeModels, ask, model, routing_mesh, says, text


class LateAnswers(FakeMemory):
    """Counts the first begin at once and answers it when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.late = asyncio.Event()

    async def BeginTurn(self, request: Any, context: Any) -> Any:  # noqa: N802
        first = not self.turns
        answer = await super().BeginTurn(request, context)
        if first:
            await self.late.wait()
        return answer


async def talks_on(_: Any) -> AsyncIterator[Any]:
    """A model that never ends; a silent one would be given up."""
    while True:
        yield text("old ")
        await asyncio.sleep(0.05)


async def test_a_runner_whose_begin_is_answered_late_makes_way_for_the_newer_one_at_once(
    tmp_path: Path,
) -> None:
    """It began to talk without its epoch; when that comes, and is the lower one, it ends."""
    scripts = iter([talks_on, says("extractive", "new")])

    def either(request: Any) -> AsyncIterator[Any]:
        return next(scripts)(request)

    memory = LateAnswers()
    models = FakeModels([model("extractive", generative=False)], {"extractive": either})
    async with routing_mesh(tmp_path, memory, models) as mesh:
        request = ask(tier=chat_pb2.TIER_INSTANT)
        older = mesh.chat(request, timeout=60)
        async for frame in older:
            if frame.WhichOneof("frame") == "text":
                break
        newer = [frame async for frame in mesh.chat(request)]
        models.stopped.clear()
        memory.late.set()
        async with asyncio.timeout(10):
            with pytest.raises(grpc.aio.AioRpcError) as superseded:
                async for _ in older:
                    pass
            await models.stopped.wait()
    assert superseded.value.code() is grpc.StatusCode.ABORTED
    assert newer[-1].final.reply_stored == chat_pb2.STORE_RESULT_STORED
    reply = memory.reply("r1")
    assert reply is not None
    assert reply.text == "new"
