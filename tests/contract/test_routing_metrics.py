"""What routing counts: replies that lack a part, by part and reason, and open breakers."""

from __future__ import annotations

from pathlib import Path

from services.routing.observing import breaker_gauges
from services.runtime.errors import AppError, Reason
from services.runtime.metrics import REGISTRY
from tests.support.routing_frames import EXTRACTIVE, collect
from tests.support.routing_mesh import (
    FakeMemory,
    FakeModels,
    ask,
    breaks,
    model,
    routing_mesh,
    says,
)


def degraded(part: str, reason: str) -> float:
    labels = {"part": part, "reason": reason}
    return REGISTRY.get_sample_value("echomesh_degraded_replies_total", labels) or 0.0


async def test_a_reply_without_a_part_counts_by_the_part_and_why(tmp_path: Path) -> None:
    away = AppError(Reason.DEPENDENCY_UNAVAILABLE, "memory is away")
    before = degraded("memory", "DEPENDENCY_UNAVAILABLE"), degraded("models", "MODEL_REFUSED")
    models = FakeModels(
        [model("only"), EXTRACTIVE],
        {"only": breaks(reason=Reason.MODEL_REFUSED), "extractive": says("extractive", "Hm.")},
    )
    async with routing_mesh(tmp_path, FakeMemory(begin_error=away), models) as mesh:
        final = (await collect(mesh.chat(ask())))[-1].final
    assert list(final.degraded) == ["memory", "models"]
    after = degraded("memory", "DEPENDENCY_UNAVAILABLE"), degraded("models", "MODEL_REFUSED")
    assert after == (before[0] + 1, before[1] + 1)


async def test_recall_says_itself_why_it_left_something_out(tmp_path: Path) -> None:
    before = degraded("index", "late")
    memory = FakeMemory(recall_degraded=("index",), recall_reasons=("late",))
    models = FakeModels([EXTRACTIVE], {"extractive": says("extractive", "Hm.")})
    async with routing_mesh(tmp_path, memory, models) as mesh:
        await collect(mesh.chat(ask()))
    assert degraded("index", "late") == before + 1


async def test_a_model_that_fails_again_and_again_shows_as_passed_over(tmp_path: Path) -> None:
    models = FakeModels(
        [model("bad"), model("good"), EXTRACTIVE], {"bad": breaks(), "good": says("good", "Hi.")}
    )
    async with routing_mesh(tmp_path, FakeMemory(), models) as mesh:
        for number in range(4):
            await collect(mesh.chat(ask(request_id=f"r{number}")))
        until = mesh.parts.book.of("bad").breaker.open_until
        assert until is not None
        (opened,) = breaker_gauges(mesh.parts.book, until - 0.01)
        (probed,) = breaker_gauges(mesh.parts.book, until + 0.01)
    told = {sample.labels["model"]: sample.value for sample in opened.samples}
    assert (told["bad"], told["good"]) == (1.0, 0.0)
    assert [sample.value for sample in probed.samples if sample.value] == []
