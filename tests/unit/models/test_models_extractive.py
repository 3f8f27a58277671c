"""The extractive responder quotes, dates, doubts and abstains; it never makes anything up."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.extractive import phrasing
from services.models.extractive.confidence import Band, band
from services.models.extractive.intent import Intent, intent_of, question_in
from services.models.extractive.people import Cast, core, speaks_of_listener
from services.models.extractive.pick import QUOTE_WORDS
from services.models.extractive.questions import QuestionType, fits, question_type
from services.models.extractive.responder import Reply, prepare, respond
from services.models.extractive.signals import embedded_question
from services.models.extractive.text import WordWeights, sentences, words
from services.models.extractive.turns import COMPANION, USER, Query, TokenGrid, Turn


def turn(text: str, day: str = "2026-03-04", **more: object) -> Turn:
    said_at = dt.datetime.fromisoformat(f"{day}T12:00:00+00:00")
    known = {"id": text[:24], "speaker": "Nora", "score": 1.0, "fused": 1.0} | more
    return Turn(text=text, said_at=said_at, **known)  # type: ignore[arg-type]


def ask(text: str, *turns: Turn, vectors: bool = False) -> Reply:
    query = Query(text, turns, user_name="Nora", companion_name="Pax")
    prepared = prepare(query)
    if vectors and prepared is not None:
        texts = [embedded_question(prepared), *(one.text for one in prepared.turns)]
        return respond(Query(prepared.text, prepared.turns, "Nora", "Pax", grids(texts)))
    return respond(query)


def grids(texts: list[str]) -> dict[str, TokenGrid]:
    """Token vectors in which a stemmed word is near itself and nothing else."""
    vocabulary = sorted({word for text in texts for word in words(text)})
    return {text: grid(text, vocabulary) for text in texts}


def grid(text: str, vocabulary: list[str]) -> TokenGrid:
    ids = tuple(vocabulary.index(word) for word in words(text))
    vectors = np.eye(len(vocabulary) or 1, dtype=np.float32)[list(ids)]
    starts, position = [], 0
    for token in text.split():
        position = text.index(token, position)
        starts += [position] * len(words(token))
    return TokenGrid(vectors, ids, tuple(starts))


LOCKER = turn("My locker code is 4417, the one by the pool.")
FILLER = turn("The pool was cold and the coffee was worse.", score=0.4, fused=0.4)


@pytest.mark.parametrize("vectors", [False, True])
def test_a_known_fact_is_quoted_with_its_day(vectors):
    reply = ask("What is my locker code?", FILLER, LOCKER, vectors=vectors)
    assert reply.text.startswith('On 4 March 2026 you told me: "My locker code is 4417')
    assert reply.quoted_ids[0] == LOCKER.id
    assert reply.confidence > 0.59


@pytest.mark.parametrize("vectors", [False, True])
def test_what_was_never_said_is_not_known(vectors):
    reply = ask("What is my blood type?", LOCKER, FILLER, vectors=vectors)
    assert reply.text.startswith("I don't know that")
    assert reply.quoted_ids == ()


def test_without_any_memory_nothing_is_known():
    assert ask("What is my locker code?").text.startswith("I don't know that")


@pytest.mark.parametrize("vectors", [False, True])
def test_of_two_statements_of_the_same_thing_the_newer_one_wins(vectors):
    newer = turn("They changed my locker code, it is 9023 now.", "2026-09-01", score=0.8)
    reply = ask("What is my locker code?", LOCKER, newer, FILLER, vectors=vectors)
    assert reply.quoted_ids == (newer.id, LOCKER.id)
    assert '9023 now." That is the newer one; before, on 4 March 2026' in reply.text


def test_what_is_so_of_a_relative_does_not_replace_what_is_so_of_the_user():
    before = turn("I live in Leeds.", "2026-03-08")
    now = turn("It is official, I live in Bristol now.", "2026-08-05")
    sister = turn("My sister lives in Lisbon.", "2026-09-09", score=0.9)
    reply = ask("Where do I live?", sister, before, now)
    assert reply.quoted_ids == (now.id, before.id)


def test_a_question_about_the_former_state_gets_the_older_statement():
    newer = turn("They changed my locker code, it is 9023 now.", "2026-09-01")
    reply = ask("What was my old locker code?", newer, LOCKER)
    assert reply.quoted_ids[0] == LOCKER.id


def test_what_the_companion_said_is_quoted_as_its_own():
    said = turn("Your locker is the blue one on the left.", from_assistant=True, speaker="Pax")
    assert "I told you: " in ask("Which locker is mine?", said).text


def test_somebody_elses_words_are_quoted_with_their_name():
    said = turn("My locker code is 5151.", speaker="Otto")
    reply = ask("What is Otto's locker code?", said, LOCKER)
    assert reply.text.startswith('On 4 March 2026 Otto said: "My locker code is 5151."')


def test_when_is_answered_with_the_day_that_the_words_mean():
    run = turn("I ran my first marathon last Sunday!", "2026-05-14")
    reply = ask("When did I run my first marathon?", run)
    assert "That means 10 May 2026, the Sunday before 14 May 2026." in reply.text


def test_when_without_any_expression_says_that_no_other_date_was_given():
    reply = ask("When did I run my first marathon?", turn("I ran my first marathon!"))
    assert reply.text.endswith("No other date was given.")


def test_a_date_that_the_quote_says_itself_is_not_repeated():
    reply = ask("When is my exam?", turn("My exam is on 3 June 2026 at noon."))
    assert "That means" not in reply.text


def test_a_long_turn_is_quoted_in_part_and_by_whole_sentences():
    padding = " ".join(f"We talked about the weather {n} times." for n in range(20))
    reply = ask("What is my locker code?", turn(f"{padding} My locker code is 4417. {padding}"))
    quoted = reply.text.partition('"')[2].rpartition('"')[0]
    assert len(quoted.split()) <= QUOTE_WORDS + 1


def test_the_quote_is_the_sentence_that_fits_when_vectors_say_where_it_is():
    padding = " ".join(f"We talked about the weather {n} times." for n in range(20))
    long = turn(f"{padding} My locker code is 4417. {padding}")
    assert "4417" in ask("What is my locker code?", long, vectors=True).text


def test_marks_inside_a_quote_cannot_end_it():
    reply = ask("What did I call my boat?", turn('I call my boat "Gull".'))
    assert "\"I call my boat 'Gull'.\"" in reply.text


def test_a_question_asked_before_is_no_answer():
    asked = turn("What is my locker code?")
    assert ask("Tell me my locker code", asked).quoted_ids == ()


def test_its_own_earlier_replies_are_not_quoted_back():
    for text in (
        ask("What is my locker code?", LOCKER).text,
        ask("What is my blood type?", LOCKER).text,
        ask("Hello").text,
        ask("Who are you?").text,
    ):
        assert phrasing.is_echo(text)
        echo = turn(text, "2026-10-01", from_assistant=True, speaker="Pax")
        assert echo.id not in ask("What is my locker code?", echo, LOCKER).quoted_ids


def test_the_same_answer_comes_whether_or_not_it_was_prepared():
    query = Query("Hello! What is my locker code?", (LOCKER, FILLER), "Nora", "Pax")
    prepared = prepare(query)
    assert prepared is not None
    assert respond(prepared) == respond(query)


def test_it_never_pretends_to_be_a_language_model():
    for message in ("Are you a language model?", "Who are you?", "Write a poem about rain"):
        assert "No language model is connected" in ask(message, LOCKER).text


@pytest.mark.parametrize(
    ("message", "intent"),
    [
        ("hi", Intent.GREETING),
        ("Hello there!", Intent.GREETING),
        ("Thanks a lot", Intent.THANKS),
        ("thank you, bye", Intent.THANKS),
        ("Good night", Intent.FAREWELL),
        ("hey, how are you?", Intent.HOW_ARE_YOU),
        ("What can you do?", Intent.IDENTITY),
        ("Translate this into French", Intent.TASK),
        ("I bought a canoe.", Intent.STATEMENT),
        ("Have a nice day", Intent.STATEMENT),
        ("Hello, I got the job!", Intent.STATEMENT),
        ("Where did I park?", Intent.QUESTION),
        ("where did i park", Intent.QUESTION),
        ("Tell me about my sister", Intent.QUESTION),
        ("Remind me when the exam is", Intent.QUESTION),
        ("do you remember my dog", Intent.QUESTION),
        ("I forgot my locker code", Intent.QUESTION),
    ],
)
def test_a_message_is_taken_for_what_it_is(message, intent):
    assert intent_of(message) is intent


def test_only_the_asking_part_of_a_message_is_answered():
    assert question_in("I lost my keys. Who has the spare?") == "Who has the spare?"
    assert question_in("I saw Ann. Where does she live?") == "I saw Ann. Where does she live?"


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Do you remember what my code is?", "what my code is?"),
        ("Hey, can you tell me where I parked?", "where I parked?"),
        ("Did I tell you about my exam?", "my exam?"),
        ("What do you know about my sister?", "my sister?"),
        ("What is my name?", "What is my name?"),
    ],
)
def test_the_frame_around_a_question_is_taken_off(question, asked):
    assert core(question) == asked


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Where do I live?", {USER}),
        ("Where do you live?", {COMPANION}),
        ("What did Otto cook?", {"otto"}),
        ("Did I tell you about the exam?", {USER}),
        ("Where is the station?", set()),
    ],
)
def test_a_question_names_whom_it_is_about(question, named):
    turns = (LOCKER, turn("I cooked rice.", speaker="Otto"))
    assert Cast.of(Query(question, turns, "Nora", "Pax")).asked_about() == named


def test_a_turn_about_its_listener_is_not_about_its_speaker():
    assert speaks_of_listener("You painted that beautifully.")
    assert speaks_of_listener("How did your exam go? And your dog?")
    assert not speaks_of_listener("I think you are right.")


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When did we meet?", QuestionType.WHEN),
        ("What year was that?", QuestionType.WHEN),
        ("How many cats do I have?", QuestionType.NUMBER),
        ("Who called?", QuestionType.WHO),
        ("Where do I live?", QuestionType.WHERE),
        ("Why did I leave?", QuestionType.WHY),
        ("Is my exam hard?", QuestionType.YES_NO),
        ("How did it go?", QuestionType.HOW),
        ("What did I eat?", QuestionType.WHAT),
    ],
)
def test_a_question_has_its_type(question, kind):
    assert question_type(question) is kind


def test_a_text_fits_a_type_by_its_marks():
    assert fits(QuestionType.NUMBER, "I have three cats") == 1.0
    assert fits(QuestionType.NUMBER, "I have cats") == 0.0
    assert fits(QuestionType.WHAT, "I have cats") == 0.5


def test_the_bands_lie_where_they_were_measured():
    assert [band(p) for p in (0.1, 0.24, 0.58, 0.59)] == [
        Band.UNKNOWN,
        Band.UNSURE,
        Band.UNSURE,
        Band.ANSWER,
    ]


def test_rare_words_weigh_more_than_common_ones():
    weights = WordWeights([["pool", "cold"], ["pool"], ["pool"]])
    assert weights["cold"] > weights["pool"]
    assert weights.share(frozenset(("pool", "cold")), ["cold"]) > 0.5


@given(st.text(max_size=400))
def test_sentences_keep_every_word_of_a_text(text):
    assert " ".join(sentences(text)).split() == text.split() or not text.strip()


@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=5))
def test_any_message_and_any_memories_are_survived(message, texts):
    turns = [turn(text, id=str(n)) for n, text in enumerate(texts)]
    reply = ask(message, *turns)
    assert reply.text
    assert 0.0 <= reply.confidence <= 1.0
    assert set(reply.quoted_ids) <= {one.id for one in turns}


def test_a_thing_near_to_the_one_asked_for_is_doubted():
    asked, near = "What is my rare blood type?", turn("My rare blood test was fine.")
    assert ask(asked, near, vectors=True).text.startswith("I'm not sure")
    known = turn("My rare blood type is A positive.")
    assert ask(asked, known, vectors=True).text.startswith("On 4 March 2026 you told me")


def test_words_without_the_kind_of_thing_asked_for_make_an_answer_less_likely():
    place = ask("Where do I work?", turn("I work in a library."), vectors=True)
    way = ask("Where do I work?", turn("I cycle to work."), vectors=True)
    assert way.confidence < place.confidence - 0.01
