"""`make proto` makes what it can and says what it left out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from scripts import generate


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The programs that were started, none of which is really run."""
    ran: list[list[str]] = []

    def run(command: list[str], cwd: Path = tmp_path) -> str:
        ran.append(command)
        return "v20.1.0" if "--version" in command else "the reference"

    (tmp_path / "docs").mkdir()
    (tmp_path / "protos").mkdir()
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "run", run)
    monkeypatch.setattr(generate, "install", lambda package: None)
    return ran


def _templates(steps: list[list[str]]) -> list[str]:
    return [s[s.index("--template") + 1] for s in steps if "--template" in s]


def test_python_is_generated_with_nothing_else_on_the_machine(
    steps: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(generate, "tool", lambda name: None)
    generate.main()
    assert [step[1] for step in steps] == ["generate", "scripts/api_reference.py"]
    assert (tmp_path / "docs/api.md").read_text() == "the reference"
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in said] == ["left out: Go", "left out: TypeScript"]


def test_every_language_is_generated_where_its_tools_are(
    steps: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generate, "tool", lambda name: f"/bin/{name}")
    generate.main()
    assert _templates(steps) == [f"clients/{name}/buf.gen.yaml" for name in ("go", "typescript")]
    assert capsys.readouterr().err == ""


def test_a_node_that_is_too_old_is_named(
    steps: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generate, "tool", lambda name: f"/bin/{name}")
    monkeypatch.setattr(generate, "MIN_NODE", 21)
    generate.main()
    assert "left out: TypeScript (it needs Node 21, this is v20.1.0)" in capsys.readouterr().err


def test_the_stubs_of_other_languages_are_of_what_clients_talk_to(
    steps: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without protovalidate's rules, whose file a program may have from elsewhere."""
    monkeypatch.setattr(generate, "tool", lambda name: f"/bin/{name}")
    generate.main()
    for step in (s for s in steps if "--template" in s):
        assert step[step.index("--exclude-type") + 1] == "buf.validate"
        chosen = {Path(b).name for a, b in pairwise(step) if a == "--path"}
        assert set(generate.CLIENT_PACKAGES) <= chosen
        assert not chosen & {"worker", "embeddings"}
