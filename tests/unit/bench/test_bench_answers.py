"""The judge of answers: what counts as right."""

from __future__ import annotations

import pytest

from tests.bench.answers_judge import Asked, is_right, names_date
from tests.bench.bench_answers_by_kind import questions

FACT = Asked("changed fact", "Where do I live now?", ("Bristol",), ("live in Leeds",))


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("You live in Bristol.", True),
        ('You told me: "I live in bristol now." Before: "I live in Leeds."', True),
        ("You live in Leeds, not Bristol.", False),
        ("I don't know that.", False),
    ],
)
def test_a_fact_is_right_by_its_words(reply: str, right: bool) -> None:
    assert is_right(FACT, reply, quotes=True) is right


@pytest.mark.parametrize(
    "reply", ["I don't know that.", "You never told me.", "I do not have any information on it."]
)
def test_saying_that_it_was_never_said_is_right_only_where_that_is_so(reply: str) -> None:
    assert is_right(Asked("never said", "?", unknown=True), reply, quotes=False)
    assert not is_right(Asked("knowledge", "?", ("told", "know")), reply, quotes=False)


def test_an_invention_is_wrong_where_nothing_was_said() -> None:
    assert not is_right(Asked("never said", "?", unknown=True), "His name is Tom.", quotes=False)


def test_a_quotation_is_no_reply_to_small_talk() -> None:
    asked = Asked("small talk", "Hello there!")
    assert is_right(asked, "Hello, Maya!", quotes=False)
    assert not is_right(asked, "You said: hello!", quotes=True)


@pytest.mark.parametrize(
    "text",
    ["on 12 September 2026", "September 12th, 2026", "the twelfth of September", "2026-09-12"],
)
def test_a_date_may_have_any_usual_form(text: str) -> None:
    assert names_date(text, "09-12")
    assert not names_date(text, "09-02")
    assert not names_date(text, "06-12")


def test_there_are_several_questions_of_every_kind() -> None:
    kinds = [asked.kind for asked in questions()]
    assert len(kinds) >= 40
    assert all(kinds.count(kind) >= 2 for kind in kinds)
    assert all(
        asked.says or asked.date or asked.unknown or asked.kind in ("small talk", "statement")
        for asked in questions()
    )
