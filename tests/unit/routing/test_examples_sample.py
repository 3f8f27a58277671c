"""The sample is a history that the importer takes, and questions without answers."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

from services.cli.import_format import Parsed, parse

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def lines() -> list[Parsed]:
    with (EXAMPLES / "history.jsonl").open("rb") as file:
        found = list(parse(file))
    assert all(isinstance(line, Parsed) for line in found)
    return [line for line in found if isinstance(line, Parsed)]


def test_every_line_can_be_imported_once() -> None:
    found = lines()
    assert 300 <= len(found) <= 360
    assert len({line.message.request_id for line in found}) == len(found)


def test_the_history_spans_sessions_over_months_in_order_of_time() -> None:
    found = lines()
    times = [line.message.time for line in found if line.message.time is not None]
    assert times == sorted(times)
    assert times[-1] - times[0] > timedelta(days=200)
    assert len({line.conversation for line in found}) >= 12


def test_no_message_is_said_twice() -> None:
    counts = Counter(line.message.text for line in lines())
    assert [text for text, count in counts.items() if count > 1] == []


def test_questions_are_asked_and_not_answered() -> None:
    text = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8")
    questions = [json.loads(line) for line in text.splitlines()]
    assert 6 <= len(questions) <= 8
    assert all(set(question) == {"text", "shows"} for question in questions)
