"""A question on a terminal: only a clear yes counts, and nobody need be there."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from rich.console import Console

from services.cli import up
from services.cli.offer import agreed
from services.cli.plan import Layout


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A terminal: the end that types, and the end that is read."""
    typing, reading = os.openpty()
    with os.fdopen(reading) as stream:
        yield typing, stream
    os.close(typing)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("why?\n", False)],
)
async def test_only_a_yes_is_one(terminal: tuple[int, TextIO], typed: str, *, answer: bool) -> None:
    os.write(terminal[0], typed.encode())
    assert await agreed(Console(file=io.StringIO()), "Shall I?", terminal[1]) is answer


async def test_silence_is_a_no(terminal: tuple[int, TextIO]) -> None:
    shown = io.StringIO()
    assert not await agreed(Console(file=shown), "Shall I?", terminal[1], limit_s=0.01)
    assert shown.getvalue() == "Shall I? [y/N] no\n"


def options(**changes: object) -> up.UpOptions:
    given = {
        "data": Path("data"),
        "port_base": 7400,
        "sample": True,
        "leave": False,
        "openai_url": "",
        "openai_model": "",
    }
    return up.UpOptions(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions put to somebody who sits there and agrees."""
    questions: list[str] = []

    async def yes(console: Console, question: str) -> bool:
        questions.append(question)
        return True

    async def fetched(say: object) -> Path:
        return Path("small.gguf")

    monkeypatch.setattr(up, "agreed", yes)
    monkeypatch.setattr(up, "on_terminal", lambda console: True)
    monkeypatch.setattr(up, "local_model", fetched)
    return questions


async def test_the_sample_offers_the_small_model_with_its_size_and_licence(
    asked: list[str],
) -> None:
    assert await up._model_file(Console(file=io.StringIO()), options()) == Path("small.gguf")
    assert "132 MB" in asked[0]
    assert "Apache-2.0" in asked[0]


@pytest.mark.parametrize(
    "changes", [{"sample": False}, {"leave": True}, {"openai_url": "http://127.0.0.1:1/v1"}]
)
async def test_nothing_is_offered_where_it_is_not_wanted(
    asked: list[str], changes: dict[str, object]
) -> None:
    assert await up._model_file(Console(file=io.StringIO()), options(**changes)) is None
    assert not asked


async def test_who_has_been_here_before_is_not_asked_again(
    asked: list[str], tmp_path: Path
) -> None:
    Layout(tmp_path).credentials.touch()
    assert await up._model_file(Console(file=io.StringIO()), options(data=tmp_path)) is None
    assert not asked


async def test_without_a_terminal_nothing_is_asked(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "on_terminal", lambda console: False)
    assert await up._model_file(Console(file=io.StringIO()), options()) is None
    assert not asked
