"""What an import file may hold, and what is said of lines that are not valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.import_format import MAX_LINE_BYTES, ImportLine, Parsed, Rejected, parse

LINE = {
    "conversation": "c1",
    "speaker": "Maya",
    "role": "user",
    "text": "Hello",
    "time": "2026-03-01T10:00:00+01:00",
}


def lines(*changes: dict[str, Any]) -> list[bytes]:
    return [json.dumps(LINE | change).encode() for change in changes]


def test_a_valid_line_becomes_a_message_with_its_time_and_speaker() -> None:
    (item,) = parse(lines({"metadata": {"mood": "good"}}))
    assert isinstance(item, Parsed)
    assert (item.conversation, item.message.role, item.message.speaker) == ("c1", "user", "Maya")
    assert item.message.time is not None
    assert item.message.time.isoformat() == "2026-03-01T10:00:00+01:00"
    assert item.message.metadata == {"mood": "good"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"role": "system"}, "role"),
        ({"time": "2026-03-01T10:00:00"}, "time"),
        ({"text": ""}, "text"),
        ({"surprise": 1}, "surprise"),
        ({"conversation": None}, "conversation"),
    ],
)
def test_an_invalid_line_is_named_with_its_field(change: dict[str, Any], reason: str) -> None:
    good, bad, after = parse(lines({}, change, {}))
    assert isinstance(good, Parsed)
    assert isinstance(after, Parsed)
    assert isinstance(bad, Rejected)
    assert bad.line == 2
    assert bad.reason.startswith(reason)


def test_lines_that_are_no_json_or_too_long_are_rejected_and_blank_ones_passed_over() -> None:
    items = list(parse([b"{oops\n", b"\n", b"x" * (MAX_LINE_BYTES + 1)]))
    assert [item.line for item in items] == [1, 3]
    assert all(isinstance(item, Rejected) for item in items)


def test_the_same_line_twice_is_one_message_and_another_text_is_another() -> None:
    first, again, other = parse(lines({}, {}, {"text": "Bye"}))
    assert isinstance(first, Parsed)
    assert isinstance(again, Parsed)
    assert isinstance(other, Parsed)
    assert first.message.request_id == again.message.request_id
    assert first.message.request_id != other.message.request_id


def test_the_published_schema_is_the_one_in_force() -> None:
    published = json.loads((Path(__file__).parents[3] / "docs/import.schema.json").read_text())
    assert published["properties"].keys() == ImportLine.model_json_schema()["properties"].keys()
    assert set(published["required"]) == set(ImportLine.model_json_schema()["required"])
