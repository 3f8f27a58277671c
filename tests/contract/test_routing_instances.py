"""A mesh with several models services, each with models of its own, from a static list."""

from __future__ import annotations

from pathlib import Path

from tests.support.routing_frames import EXTRACTIVE, collect
from tests.support.routing_mesh import FakeMemory, FakeModels, ask, model, routing_mesh, says


def serving(*names: str) -> FakeModels:
    scripts = {name: says(name, f"{name} here.") for name in names}
    return FakeModels([*(model(name) for name in names), EXTRACTIVE], scripts)


async def test_each_model_is_asked_of_the_service_that_has_it(tmp_path: Path) -> None:
    first, second = serving("small"), serving("big")
    async with routing_mesh(tmp_path, FakeMemory(), first, more_models=[second]) as mesh:
        for number, name in enumerate(("small", "big", "small", "big")):
            frames = await collect(mesh.chat(ask(request_id=f"r{number}", model=name)))
            assert frames[-1].final.model == name
    assert [request.model for request in first.requests] == ["small", "small"]
    assert [request.model for request in second.requests] == ["big", "big"]


async def test_a_service_that_dies_is_replaced_by_another_with_the_same_model(
    tmp_path: Path,
) -> None:
    first, second = serving("same"), serving("same")
    async with routing_mesh(tmp_path, FakeMemory(), first, more_models=[second]) as mesh:
        await collect(mesh.chat(ask(request_id="warm", model="same")))
        await mesh.stop["models0"]()
        for number in range(4):
            frames = await collect(mesh.chat(ask(request_id=f"r{number}", model="same")))
            assert (frames[-1].final.model, list(frames[-1].final.degraded)) == ("same", [])
    assert len(second.requests) >= 4
