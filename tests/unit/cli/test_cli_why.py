"""`echomesh why`: times as people write them, and an explanation as lines."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from echomesh import Attempt, Decision, Explanation, Timings, UsedMemory
from services.cli.files import CommandError
from services.cli.why import moment, told

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def explanation(**changes: object) -> Explanation:
    given: dict[str, object] = {
        "request_id": "q",
        "conversation_id": "main",
        "message_id": "m1",
        "reply_id": "r1",
        "time": NOON,
        "decision": Decision("fast", "recall", "good", "a language model that is ready"),
        "attempts": (Attempt("bad", "MODEL_UNAVAILABLE", 0.4), Attempt("good", "", 1.25)),
        "degraded": ("index",),
        "finish_reason": "stop",
        "memories": (
            UsedMemory("a", "The car is by the harbour.", "Ann", NOON, 0.9, "main"),
            UsedMemory("b", "", "Ann", NOON, 0.4, "main"),
        ),
        "used_memory_ids": ("a",),
        "prompt_tokens": 70,
        "completion_tokens": 9,
        "timings": Timings(0.0, 0.12, 0.5, 1.5),
        "confidence": None,
        "trace_id": "f" * 32,
        "trace_url": "http://jaeger/trace/" + "f" * 32,
    }
    return Explanation(**(given | changes))  # type: ignore[arg-type]


def lines_of(why: Explanation) -> str:
    return "\n".join(told(why))


def test_everything_that_led_to_a_reply_is_told() -> None:
    text = lines_of(explanation())
    for part in (
        "good: a language model that is ready",
        "bad: MODEL_UNAVAILABLE after 0.40 s",
        "good: answered after 1.25 s",
        "left out    index",
        "* 0.90 2026-11-21 Ann: “The car is by the harbour.”",
        "(forgotten)",
        "prepared 0.12 s, first text 0.50 s",
        "http://jaeger/trace/ffff",
    ):
        assert part in text


def test_what_is_not_known_is_said_to_be_so() -> None:
    text = lines_of(
        explanation(message_id="", reply_id="", time=None, memories=(), trace_url="", degraded=())
    )
    assert "not stored" in text
    assert re.search(r"memories +none", text)
    assert re.search(r"left out +nothing", text)
    assert "f" * 32 in text


def test_a_time_of_day_is_the_last_one_that_has_been() -> None:
    """The whole minute counts, so that 2:40 finds what was said at 2:40:31."""
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).astimezone()
    for text, day in ((f"{now - timedelta(hours=1):%H:%M}", 0), (f"{now:%H}:59", 1)):
        found = moment(text, now).astimezone()
        assert found.strftime("%H:%M:%S") == f"{text}:59"
        assert (now.date() - found.date()).days in {day, day + (now.hour == 0)}


def test_a_full_time_is_taken_as_it_is() -> None:
    assert moment("2026-11-20T02:40:10Z", NOON).replace(microsecond=0) == datetime(
        2026, 11, 20, 2, 40, 10, tzinfo=UTC
    )


def test_what_is_no_time_is_refused_in_one_line() -> None:
    with pytest.raises(CommandError, match="is no time"):
        moment("soon", NOON)
