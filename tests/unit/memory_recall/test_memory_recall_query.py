"""A question becomes a query: names taken out, and the one speaker it is about found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory.recall import Asked, prepare_query

SPEAKERS = ("Maya Chen", "Jon", "Will", "user", "assistant")
MAYA, JON = Asked(speaker="Maya Chen"), Asked(speaker="Jon")
USER, COMPANION = Asked(role="user"), Asked(role="assistant")


@pytest.mark.parametrize(
    ("text", "dense"),
    [
        ("What does Maya's sister do?", "What does sister do?"),
        ("What did maya chen\u2019s dog eat?", "What did dog eat?"),
        ("Jon, what is my code?", "what is my code?"),
        ("Where did the majority go?", "Where did the majority go?"),
        ("Will it rain for will?", "it rain for will?"),
        ("Maya?", "Maya?"),
        ("Do you remember my code?", "my code?"),
        ("Please tell me about the trip", "the trip"),
        ("Do you remember?", "Do you remember?"),
    ],
)
def test_recall_embeds_the_question_without_names_and_address(text: str, dense: str) -> None:
    assert prepare_query(text, SPEAKERS).dense_text == dense


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("What does maya like?", MAYA),
        ("What did Jon's friend say?", JON),
        ("Did Maya meet Jon?", None),
        ("What happened in May?", None),
        ("What is my locker code?", USER),
        ("Where did I park?", USER),
        ("What is your name?", COMPANION),
        ("Do you remember where I parked?", USER),
        ("What do you know about my job?", USER),
        ("Jon, what is my code?", USER),
        ("What is my code, Jon?", USER),
        ("When did I tell you about it?", USER),
        ("What book did you recommend to me?", COMPANION),
        ("Do you and I agree?", None),
        ("What is my sister Anna like?", USER),
        ("Will it rain?", Asked(speaker="Will")),
        ("when will it rain?", None),
        ("Who is the user?", None),
    ],
)
def test_recall_finds_the_one_speaker_a_question_is_about(text: str, asked: Asked | None) -> None:
    assert prepare_query(text, SPEAKERS).asked == asked


def test_recall_maps_the_first_person_to_the_asker_where_the_asker_is_known() -> None:
    assert prepare_query("What is my code?", SPEAKERS, asker="Jon").asked == JON
    assert prepare_query("What did Jon say was my code?", SPEAKERS, asker="Jon").asked == JON


def test_recall_searches_no_names_unless_there_is_nothing_else() -> None:
    assert prepare_query("Where did Maya park the car?", SPEAKERS).terms == {"park": 1, "car": 1}
    assert prepare_query("Maya Chen?", SPEAKERS).terms == {"maya": 1, "chen": 1}


def test_recall_takes_a_first_name_that_two_speakers_share_for_neither() -> None:
    query = prepare_query("What does Maya like?", ("Maya Chen", "Maya Roy"))
    assert query.asked is None
    assert query.dense_text == "What does Maya like?"


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=4))
def test_recall_makes_a_query_of_any_text_and_any_names(text: str, names: list[str]) -> None:
    query = prepare_query(text, names)
    assert query.text == text
    assert bool(query.dense_text) == bool(text)


@pytest.mark.parametrize(
    "text",
    [
        "What activities does Ann do with her family?",
        "Which books have I read?",
        "How many children does she have?",
        "What kinds of tea did you buy?",
    ],
)
def test_a_question_for_several_things_is_known_by_its_plural(text: str) -> None:
    assert prepare_query(text, ("Ann",)).several


@pytest.mark.parametrize(
    "text",
    [
        "What did James buy?",
        "What is my boss called?",
        "What was his status?",
        "Where do I live?",
        "Which city is it?",
    ],
)
def test_a_name_or_a_word_that_only_ends_in_s_is_no_plural(text: str) -> None:
    assert not prepare_query(text, ("James",)).several


def test_a_run_of_white_space_in_a_question_counts_as_one_space() -> None:
    """Else a page of it keeps every other user waiting while patterns look through it."""
    said = prepare_query("what is \n\t   my   code", [])
    assert said.dense_text == "what is my code"
    assert said.text == "what is \n\t   my   code"
