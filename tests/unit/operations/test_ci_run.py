"""`.ci/run` with every tool played by a script: what it starts, waits for and takes down."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
STUBS = {
    "make": 'echo "make $1 ${KUBECONFIG:-} ${ECHOMESH_JAEGER_BINARY:-}" >>"$SAID"\n'
    '[ "$1" != "$FAILS" ]',
    "go": "exit 0",
    "id": "echo 0",
    "dpkg": "exit 0",
    "apt-get": "exit 1",
    "jaeger": 'echo "jaeger $1" >>"$SAID"\n'
    '[ jaeger != "$FAILS" ] || { echo no compiler; exit 3; }\n'
    "echo /built/jaeger",
    "cluster": 'echo "cluster $1" >>"$SAID"\n[ "$1" = up ] || exit 0\n'
    '[ cluster != "$FAILS" ] || { echo no memory >&2; exit 3; }\n'
    'echo "cluster: ready: export KUBECONFIG=/box/kubeconfig PATH=/box/bin:\\$PATH" >&2',
}


def ci(folder: Path, fails: str = "", at: str = "tools") -> tuple[int, str, list[str]]:
    """Run it; returns its exit status, what it said, and what it started, in order."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    tools = folder / "tools"
    tools.mkdir()
    for name, body in STUBS.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    said = folder / "said"
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SAID": str(said),
        "FAILS": fails,
        "ECHOMESH_JAEGER_TOOL": str(folder / at / "jaeger"),
        "ECHOMESH_CLUSTER_TOOL": str(folder / at),
        "KUBECONFIG": "/somebody/elses",
    }
    log = folder / "log"
    with log.open("w") as out:
        done = subprocess.run(
            ["bash", str(folder / ".ci/run")], env=environment, stdout=out, stderr=out, check=False
        )
    return done.returncode, log.read_text(), said.read_text().splitlines()


def test_the_cluster_of_the_tool_is_tested_and_taken_down_and_no_other(tmp_path: Path) -> None:
    status, told, started = ci(tmp_path)
    assert status == 0
    assert told.splitlines()[1] == "== set-up", "what was said first is still there at the end"
    assert started[-2:] == ["make test-cluster /box/kubeconfig /built/jaeger", "cluster down"]
    assert "make test-jaeger /somebody/elses /built/jaeger" in started


def test_what_takes_long_to_build_is_begun_before_the_steps_and_not_left_running(
    tmp_path: Path,
) -> None:
    _, _, started = ci(tmp_path)
    first_up, second_up = (n for n, line in enumerate(started) if line == "cluster up")
    between = started[first_up + 1 : second_up]
    assert between.count("cluster image") == 6
    assert between.count("cluster down") == 1
    assert started.count("jaeger build") == 2


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("jaeger", "no compiler"),
        ("cluster", "no memory"),
        ("chart-test", "ci: suites failed"),
        ("test-sdks", "ci: suites failed"),
        ("setup-engine", "ci: engine failed"),
    ],
)
def test_what_fails_beside_the_steps_fails_the_run_and_shows_why(
    tmp_path: Path, fails: str, words: str
) -> None:
    status, told, started = ci(tmp_path, fails)
    assert status != 0
    assert words in told
    assert f"make test-{fails}" not in " ".join(started)


def test_a_step_that_fails_ends_the_run_and_the_cluster(tmp_path: Path) -> None:
    status, _, started = ci(tmp_path, "test-cluster")
    assert status != 0
    assert started[-1] == "cluster down"
    (tmp_path / "early").mkdir()
    status, _, started = ci(tmp_path / "early", "lint")
    assert status != 0
    assert "make test" not in [line.strip() for line in started]
    assert started[-1] == "cluster down"


def test_without_the_tools_the_steps_that_need_them_are_left_out(tmp_path: Path) -> None:
    status, _, started = ci(tmp_path, at="nowhere")
    assert status == 0
    assert started[-1].startswith("make test-engine")
    assert not [line for line in started if "jaeger" in line or "cluster" in line]
