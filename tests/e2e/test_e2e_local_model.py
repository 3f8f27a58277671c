"""`echomesh up --model FILE.gguf`: a real language model answers, offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from echomesh import Client, Text
from tests.support.gguf import small_model
from tests.support.mesh import echomesh, running_mesh
from tests.support.waiting import until

MODEL = "llamacpp/SmolLM2-135M-Instruct.Q4_1"


@pytest.mark.timeout(240)
async def test_a_gguf_file_is_served_and_its_words_reach_the_reader_as_they_are_written(
    tmp_path: Path,
) -> None:
    with running_mesh(tmp_path / "data", "--model", str(small_model())) as mesh:
        client = Client(mesh.file.address, api_key=mesh.credentials.api_key)
        async with client:

            async def written() -> list[str]:
                """The pieces of a reply that the language model wrote, none if it did not."""
                frames = [f async for f in client.chat("Hello there!", tier="standard")]
                final = frames[-1]
                texts = [frame.text for frame in frames if isinstance(frame, Text)]
                return texts if getattr(final, "model", "") == MODEL else []

            pieces = await until(written, "the language model answers")
        assert len(pieces) > 1
        assert "".join(pieces).strip()


def test_a_file_that_is_no_model_is_refused_in_one_line_before_anything_starts(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    done = echomesh("up", "--model", str(broken), "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr.strip() == f"echomesh: {broken} is no GGUF file"
    assert not (tmp_path / "data").exists()
