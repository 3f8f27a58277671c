"""What a newcomer sees: the sample conversation, and the SDK's examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mesh import RunningMesh, free_port_base
from tests.support.mesh import echomesh as run_echomesh

ROOT = Path(__file__).parents[2]


def test_the_sample_shows_memory_a_changed_fact_a_date_and_an_honest_i_dont_know(
    tmp_path: Path,
) -> None:
    data = ["--data", str(tmp_path / "data"), "--port-base", str(free_port_base())]
    done = run_echomesh("up", "--sample", "--exit", *data)
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("334 messages stored", "4719", "Bristol", "21 March 2026", "I don't know that"):
        assert shown in done.stdout, done.stdout
    assert done.stdout.count("first text") == len(
        (ROOT / "examples/questions.jsonl").read_text().splitlines()
    )


@pytest.mark.parametrize(
    ("name", "extra", "shown"),
    [
        ("remember_and_ask.py", [], "blue fence"),
        ("stream_a_reply.py", ["Hello there"], "stop after"),
    ],
)
def test_the_sdks_examples_run(mesh: RunningMesh, name: str, extra: list[str], shown: str) -> None:
    program = ROOT / "clients/python/examples" / name
    command = [sys.executable, str(program), mesh.file.address, mesh.credentials.api_key, *extra]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
