"""What is asked, answered and quoted over and over is no new evidence, and crowds nothing out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.memory.recall import (
    Candidate,
    CorpusStats,
    Scored,
    collapsed,
    document_terms,
    prepare_query,
    rank,
)

NOON = datetime(2026, 5, 8, 12, tzinfo=UTC)
QUESTION = "What is my locker code?"
HISTORY = (
    "My locker code is 4417, the one by the pool.",
    "My sister got a new bike.",
    "The pool was cold and the coffee was worse.",
    "I lost the code of my suitcase.",
)
ECHO = 'On 8 May 2026 you told me: "My locker code is 4417, the one by the pool."'


def said(place: tuple[str, int], text: str, role: str = "user", day: int = 0) -> Candidate:
    """A turn at its place, so many days after the first."""
    conversation, seq = place
    time = NOON + timedelta(days=day, minutes=seq)
    return Candidate(
        memory_id=f"{conversation}-{seq}",
        conversation_id=conversation,
        seq=seq,
        speaker="Ann" if role == "user" else "Echo",
        role=role,  # type: ignore[arg-type]
        text=text,
        time=time,
        vector=None,
        terms=document_terms(text, time),
    )


def history() -> list[Candidate]:
    """What was told before anything was asked."""
    return [said(("told", n), text) for n, text in enumerate(HISTORY, 1)]


def asked(times: int, question: str, replies: Sequence[str], *, apart: bool) -> list[Candidate]:
    """The same question and a reply, over and over: in one conversation or each in its own."""
    turns = []
    for n in range(times):
        place = (f"c{n}", 1) if apart else ("c", 2 * n + 1)
        turns.append(said(place, question, day=n))
        reply = replies[n % len(replies)]
        turns.append(said((place[0], place[1] + 1), reply, "assistant", day=n))
    return turns


def ranked(text: str, turns: Sequence[Candidate]) -> list[Scored]:
    """Rank ``turns`` as the whole corpus of a user."""
    df = Counter(term for candidate in turns for term in candidate.terms)
    stats = CorpusStats(len(turns), df, ("Ann", "Echo"))
    return list(collapsed(rank(prepare_query(text, stats.speakers), turns, stats)))


def texts(scored: Sequence[Scored]) -> list[str]:
    return [one.candidate.text for one in scored]


@pytest.mark.parametrize("apart", [False, True], ids=["one conversation", "many"])
@pytest.mark.parametrize(
    "replies",
    [
        [ECHO],
        ["Your locker code is 4417."],
        ["Your locker code is 4417.", "It is 4417, the locker by the pool!", "4417 opens it."],
        ["I don't know that: nothing I remember says so."],
    ],
    ids=["quoting", "answering", "in other words", "not knowing"],
)
def test_a_fact_stays_on_top_however_often_it_is_asked_for(
    replies: Sequence[str], apart: bool
) -> None:
    once = ranked(QUESTION, history())
    often = ranked(QUESTION, [*history(), *asked(50, QUESTION, replies, apart=apart)])
    assert HISTORY[0] in texts(often)[:2]
    assert len(often) <= len(once) + 1


@pytest.mark.parametrize(
    "before",
    [
        "what is my locker code",
        "Hey Echo, do you remember my locker code?",
        "Hi! What's my locker code, please?",
        "Tell me my locker code.",
    ],
)
def test_a_question_in_nearly_the_same_words_is_no_evidence(before: str) -> None:
    turns = [*history(), *asked(3, before, ["No."], apart=True)]
    assert before not in texts(ranked(QUESTION, turns))


@pytest.mark.parametrize(
    "other",
    [
        "I changed the locker code, did you know?",
        "What is the code of my bike?",
        "How are you?",
        "My locker code",
        "What a locker code: 4417",
    ],
)
def test_a_turn_that_tells_or_asks_something_else_stays(other: str) -> None:
    turns = [*history(), said(("c", 1), other)]
    assert other in texts(ranked(QUESTION, turns))


def test_a_statement_that_opens_like_a_question_stays() -> None:
    told = "When I was nine my first locker code was 4711."
    turns = [*history(), said(("c", 1), told)]
    assert told in texts(ranked("What was my first locker code when I was nine?", turns))


def test_a_statement_is_found_by_its_own_words() -> None:
    assert texts(ranked(HISTORY[0], history()))[0] == HISTORY[0]


def test_of_the_replies_to_one_question_the_newest_stays() -> None:
    replies = [f"Perhaps number {n}." for n in range(5)]
    turns = [*history(), *asked(5, QUESTION, replies, apart=True)]
    assert [text for text in texts(ranked(QUESTION, turns)) if text in replies] == replies[-1:]


@pytest.mark.parametrize(
    "echo",
    [
        ECHO,
        f"I'm not sure; the nearest I recall is this. {ECHO}",
        'On 8 May 2026 you told me: "My locker code is 4417, the ..."',
        f'{ECHO} Also: on 8 May 2026 you told me: "My sister got a new bike."',
    ],
    ids=["sure", "unsure", "cut", "two"],
)
def test_a_quotation_gives_way_to_its_source_and_stays_without_it(echo: str) -> None:
    quoting = said(("c", 2), echo, "assistant")
    question = "Where is the locker?"
    assert echo not in texts(ranked(question, [*history(), quoting]))
    assert echo in texts(ranked(question, [*history()[1:], quoting]))


@pytest.mark.parametrize(
    ("text", "role"),
    [
        (ECHO, "user"),
        ('The song "The one by the pool" is from 1984.', "assistant"),
        (
            f"{ECHO} Better change it: somebody broke into three lockers at that gym last week, "
            "and the police say that all of them had numbers which were easy to guess.",
            "assistant",
        ),
    ],
)
def test_a_turn_that_says_more_than_it_quotes_stays(text: str, role: str) -> None:
    turns = [*history(), said(("c", 2), text, role)]
    assert text in texts(ranked(QUESTION, turns))


def test_the_same_statement_counts_once_a_day_and_a_repeated_question_once() -> None:
    run, park = "I ran along the river.", "Where did I run, by the park?"
    turns = [
        *(said((f"r{n}", 1), run, day=n // 2) for n in range(4)),
        *(said((f"q{n}", 1), park, day=n) for n in range(4)),
    ]
    assert Counter(texts(ranked("When did I run along the river?", turns))) == {run: 2, park: 1}


def test_collapsing_keeps_the_first_and_tells_speakers_and_kinds_apart() -> None:
    first = said(("c", 1), "Tea is fine.")
    others = [
        replace(first, memory_id="2", text="tea is fine"),
        replace(first, memory_id="3", speaker="Bea"),
        replace(first, memory_id="4", kind="fact"),
        replace(first, memory_id="5", text="\N{THUMBS UP SIGN}"),
    ]
    [reasons] = [one.reasons for one in ranked("tea", [first])]
    scored = [Scored(candidate, 1.0, reasons) for candidate in [first, *others]]
    assert [one.candidate.memory_id for one in collapsed(scored)] == ["c-1", "3", "4", "5"]
