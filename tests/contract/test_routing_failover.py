"""A model that is silent, breaks off or is away: another one answers, or the error is clear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.memory.v1 import conversation_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2, routing_pb2_grpc
from services.runtime.errors import Reason
from tests.support.routing_frames import (
    EXTRACTIVE,
    STORED,
    collect,
    kinds,
    mesh_of,
    reason_of,
    shown,
)
from tests.support.routing_mesh import (
    FakeMemory,
    ask,
    breaks,
    hangs,
    model,
    says,
)


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


async def test_a_target_that_fails_before_its_first_text_is_passed_over(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(
        tmp_path,
        memory,
        model("bad"),
        model("good"),
        EXTRACTIVE,
        bad=breaks(),
        good=says("good", "Here."),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
        stub = routing_pb2_grpc.RoutingServiceStub(mesh.channel)
        why = await stub.Explain(
            routing_pb2.ExplainRequest(request_id="r1"),
            metadata=(("authorization", "Bearer alice"),),
        )
        with pytest.raises(grpc.aio.AioRpcError) as foreign:
            await stub.Explain(
                routing_pb2.ExplainRequest(request_id="r1"),
                metadata=(("authorization", "Bearer mallory"),),
            )
    assert "restart" not in kinds(frames)
    assert (shown(frames), frames[-1].final.model) == ("Here.", "good")
    assert [(a.model, a.error_reason) for a in why.attempts] == [
        ("bad", "MODEL_UNAVAILABLE"),
        ("good", ""),
    ]
    assert why.decision.model == "good"
    assert reason_of(foreign.value)[0] == "NOT_FOUND"


async def test_a_target_that_breaks_off_is_rescued_with_a_restart(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(
        tmp_path,
        memory,
        model("bad"),
        EXTRACTIVE,
        bad=breaks("half a"),
        extractive=says("extractive", "whole"),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert kinds(frames).count("restart") == 1
    assert shown(frames) == "whole"
    assert list(frames[-1].final.degraded) == ["models"]
    assert memory.reply("r1").text == "whole"  # type: ignore[union-attr]


async def test_a_models_service_that_comes_back_is_tried_again_by_itself(
    tmp_path: Path, memory: FakeMemory
) -> None:
    scripts = iter(
        [breaks("half", reason=Reason.DEPENDENCY_UNAVAILABLE), says("extractive", "whole")]
    )

    def either(request: Any) -> AsyncIterator[Any]:
        return next(scripts)(request)

    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=either)
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert kinds(frames).count("restart") == 1
    assert (shown(frames), frames[-1].final.reply_stored) == ("whole", STORED)


async def test_a_silent_target_loses_its_turn_to_the_next_one(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(
        tmp_path,
        memory,
        model("slow"),
        EXTRACTIVE,
        slow=hangs(),
        extractive=says("extractive", "in time"),
    )
    async with running as mesh:
        frames = await collect(mesh.chat(ask(tier=chat_pb2.TIER_FAST)))
    assert shown(frames) == "in time"


async def test_text_that_nobody_can_go_on_with_ends_as_an_error_and_is_stored(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=breaks("half a"))
    async with running as mesh:
        frames = await collect(mesh.chat(ask()))
    assert shown(frames) == "half a"
    assert frames[-1].final.finish_reason == conversation_pb2.FINISH_REASON_ERROR
    assert frames[-1].final.reply_stored == STORED


async def test_models_away_is_a_clear_error_that_says_when_to_try_again(
    tmp_path: Path, memory: FakeMemory
) -> None:
    _, running = mesh_of(tmp_path, memory, EXTRACTIVE, extractive=says("extractive", "Hm."))
    async with running as mesh:
        await mesh.stop["models"]()
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await collect(mesh.chat(ask()))
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(away.value) == ("DEPENDENCY_UNAVAILABLE", True)
