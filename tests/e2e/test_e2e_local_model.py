"""`echomesh up --model FILE.gguf`: a real language model answers, offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echomesh import Client, EchomeshError, Final, Text
from echomesh.models.v1 import models_pb2
from tests.support.gguf import small_model
from tests.support.mesh import echomesh, running_mesh
from tests.support.waiting import until

MODEL = "llamacpp/SmolLM2-135M-Instruct.Q4_1"
HELLO = "Hello there!"
# What may need a tool is never quoted, however long the model takes.
CLOCK = models_pb2.Tool(name="clock", description="The time.", parameters_json='{"type": "object"}')
NOT_YET = {"MODEL_UNAVAILABLE", "MODEL_LACKS_ABILITY"}


@pytest.mark.timeout(240)
async def test_a_gguf_file_is_served_and_its_words_reach_the_reader_as_they_are_written(
    tmp_path: Path,
) -> None:
    with running_mesh(tmp_path / "data", "--model", str(small_model())) as mesh:
        async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:

            async def written() -> list[str]:
                """The pieces of a reply that the language model wrote, none while it loads."""
                # So small a model may go on for as long as it is let.
                short = models_pb2.Sampling(max_tokens=32)
                chat = client.chat(HELLO, tools=[CLOCK], tool_choice="none", sampling=short)
                try:
                    frames = [frame async for frame in chat]
                except EchomeshError as error:
                    assert error.reason in NOT_YET, error
                    return []
                assert isinstance(frames[-1], Final)
                assert frames[-1].model == MODEL
                return [frame.text for frame in frames if isinstance(frame, Text)]

            pieces = await until(written, "the language model answers")
        assert len(pieces) > 1
        assert "".join(pieces).strip()


@pytest.mark.timeout(240)
async def test_a_model_of_vectors_serves_recall(tmp_path: Path) -> None:
    """Embeddings asks models for the dense vectors; memory keeps them in an index of their size."""
    model = {"engine": "llamacpp", "path": str(small_model()), "name": "v", "embeds": True}
    env = {
        "ECHOMESH_MODELS_ENGINES": json.dumps([model | {"context_length": 128, "threads": 1}]),
        "ECHOMESH_EMBEDDINGS_DENSE_MODEL": "llamacpp/v",
        "ECHOMESH_EMBEDDINGS_DENSE_DIMENSIONS": "576",
        "ECHOMESH_MEMORY_EMBEDDING_DIMENSIONS": "576",
    }
    with running_mesh(tmp_path / "data", env=env) as mesh:
        async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
            user = client.as_user("vectors")
            kept = await user.remember("My bicycle is green.")

            async def indexed() -> bool:
                return (await user.index_status())[1] == 0

            await until(indexed, "the memory has its vectors")

            async def whole() -> bool:
                found = await user.recall("What colour is my bicycle?")
                return not found.degraded and [hit.memory.id for hit in found.hits] == [kept.id]

            await until(whole, "a recall that lacks no part")


def test_a_file_that_is_no_model_is_refused_in_one_line_before_anything_starts(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    done = echomesh("up", "--model", str(broken), "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr.strip() == f"echomesh: {broken} is no GGUF file"
    assert not (tmp_path / "data").exists()
