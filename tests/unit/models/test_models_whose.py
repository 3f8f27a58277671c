"""A turn about somebody else does not answer: other kin, another's thing, another subject."""

from __future__ import annotations

import datetime as dt

import pytest

from services.models.extractive.confidence import answerable
from services.models.extractive.people import OTHER, SELF
from services.models.extractive.pick import rank
from services.models.extractive.responder import respond
from services.models.extractive.signals import measure
from services.models.extractive.text import WordWeights, words
from services.models.extractive.turns import Query, Turn
from services.models.extractive.whose import (
    another_instead,
    other_kin,
    other_subject,
    other_thing_named,
    others_thing,
)


def turn(text: str, score: float, previous: str = "") -> Turn:
    said_at = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
    return Turn(text, text, said_at, speaker="Nora", score=score, previous_text=previous)


def best(asked: str, *turns: Turn) -> str:
    signals = measure(Query(asked, turns, user_name="Nora", companion_name="Pax"))
    return rank(signals)[0].scored.turn.text


def test_the_mothers_name_is_not_the_sisters() -> None:
    mother = turn("Helena. She is sixty-eight.", 1.5, "What is your mother's name?")
    sister = turn("My sister Ida lives in Turku.", 1.3)
    assert best("What is my sister's name?", mother, sister) == sister.text
    assert best("What is my mother's name?", mother, sister) == mother.text


def test_somebody_elses_birthday_is_not_mine() -> None:
    hers = turn("Her birthday is on Sunday.", 1.5)
    mine = turn("My birthday is on the 3rd of May.", 1.3)
    assert best("When is my birthday?", hers, mine) == mine.text


def test_what_you_should_do_is_not_what_i_do() -> None:
    advice = turn("You should work in a shop.", 1.4)
    fact = turn("I work in a library in Turku.", 1.3)
    assert best("Where do I work?", advice, fact) == fact.text


def test_a_turn_about_somebody_else_makes_an_answer_less_likely() -> None:
    def sure(text: str) -> float:
        query = Query("When is my birthday?", [turn(text, 1.0)], "Nora", "Pax")
        return answerable(measure(query))

    assert sure("Her birthday is in May.") < sure("My birthday is in May.")


def test_a_second_quote_is_not_about_somebody_else() -> None:
    sister = turn("Ida is my sister's name.", 1.5)
    mother = turn("Helena is my mother's name.", 1.8)
    query = Query("What is my sister's name?", [sister, mother], "Nora", "Pax")
    assert respond(query).quoted_ids == (sister.id,)


@pytest.mark.parametrize(
    ("asked", "said", "share"),
    [
        ("What is my sister's name?", "my brother Leo", 1.0),
        ("What is my sister's name?", "my little sis Ida", 0.0),
        ("Who are my parents?", "Mum and I", 0.0),
        ("Did my kids meet my aunt?", "my daughter was there", 0.5),
        ("Where is my key?", "my brother has it", 0.0),
    ],
)
def test_kin_is_missed_by_relation_and_not_by_word(asked: str, said: str, share: float) -> None:
    assert other_kin(asked, said) == share


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        ("When is my birthday?", "it was his eighty-second birthday", True),
        ("When is my birthday?", "his birthday is near my birthday", False),
        ("When is my birthday?", "a birthday is a day", False),
        ("When is her birthday?", "his birthday", False),
        ("Where is my key?", "Leo\u2019s key is here", True),
    ],
)
def test_a_thing_is_anothers_only_if_all_that_is_said_of_it_is(
    asked: str, said: str, expected: bool
) -> None:
    assert others_thing(asked, said) is expected


def test_the_subject_is_looked_for_where_the_questions_words_are() -> None:
    asked = frozenset(words("work"))
    weights = WordWeights([["work"]], total=10)
    assert other_subject(asked, weights, "You work too much. I know.", SELF, OTHER)
    assert not other_subject(asked, weights, "I work. You know.", SELF, OTHER)
    assert not other_subject(asked, weights, "You know.", SELF, OTHER)
    assert not other_subject(asked, weights, "Do you work?", SELF, OTHER)


def test_how_old_my_cat_is_does_not_say_how_old_i_am() -> None:
    cat = turn("My cat is three years old now.", 1.4)
    fact = turn("I am 34 years old.", 1.3)
    assert best("How old am I?", cat, fact) == fact.text


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        ("Where do I work?", "My sister works at the hospital.", True),
        ("Where do I work?", "Well, she works at the hospital.", True),
        ("Where do I work?", "My sister works where I work.", False),
        ("Where do I work?", "My work is in Leeds.", False),
        ("Where do I work?", "My sister is fine. Got to work early at the shop.", False),
        ("Where does my sister work?", "My sister works at the hospital.", False),
        ("How old am I?", "Pascal, grey, nine years old.", True),
        ("How old am I?", "Turned 34, so my old coat is too small.", False),
        ("How old am I?", "Pascal is grey.", False),
    ],
)
def test_what_another_is_or_does_is_no_answer_about_the_speaker(
    asked: str, said: str, expected: bool
) -> None:
    asked_words = frozenset(words(asked))
    weights = WordWeights([list(asked_words)], total=10)
    assert another_instead(asked, asked_words, weights, said) is expected


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        ("What is my blood type?", "I had a blood test.", True),
        ("What is my blood type?", "It turned out to be type A.", False),
        ("What's Nora's blood type now?", "I had a blood test.", True),
        ("What is my address?", "I live in Leeds.", False),
        ("What blood type do I have?", "I had a blood test.", False),
    ],
)
def test_a_thing_named_in_several_words_needs_the_last_of_them(
    asked: str, said: str, expected: bool
) -> None:
    assert other_thing_named(asked, said) is expected
