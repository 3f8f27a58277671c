"""What the sample conversation asks."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from services.cli import sample
from services.routing.classify import classify
from services.routing.domain import QueryType


@pytest.mark.parametrize("writes", [True, False])
async def test_a_language_model_is_shown_writing_and_only_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """The other questions are about the past: a small model is not asked those."""
    asked: list[str] = []

    async def ask(client: Any, text: str, *_: Any) -> Any:
        asked.append(text)
        return SimpleNamespace(final=None)

    async def load(*_: Any) -> None:
        pass

    monkeypatch.setattr(sample, "ask", ask)
    monkeypatch.setattr(sample, "load_history", load)
    await sample.play(SimpleNamespace(), Console(file=io.StringIO()), writes=writes)  # type: ignore[arg-type]
    assert len(asked) == 8 + writes
    assert (asked[-1] == sample.WRITING) is writes
    assert {classify(text) for text in asked[:8]} == {QueryType.RECALL}
    assert classify(sample.WRITING) is QueryType.CREATIVE


async def test_what_was_answered_without_a_part_is_asked_again_with_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine shall not show a companion that remembers nothing."""
    asked: list[tuple[str, str]] = []

    async def ask(client: Any, text: str, *others: Any) -> Any:
        asked.append((text, others[-1]))
        degraded = ("memory",) if asked == [(text, "")] else ()
        shown = {"tier": "fast", "model": "extractive", "first_text_s": 0.1, "total_s": 0.1}
        final = SimpleNamespace(degraded=degraded, **shown)
        return SimpleNamespace(final=final, trace_id="t", used=list)

    async def load(*_: Any) -> None:
        pass

    monkeypatch.setattr(sample, "ask", ask)
    monkeypatch.setattr(sample, "load_history", load)
    said = io.StringIO()
    await sample.play(SimpleNamespace(), Console(file=said))  # type: ignore[arg-type]
    (first, _), (again, tier), *rest = asked
    assert (again, tier) == (first, "standard")
    assert first not in [text for text, _ in rest]
    assert said.getvalue().count("asked again") == 1
