"""Ranking: exact signals fused, neighbours and age applied, every hit with its reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory.recall import (
    TOKEN_DIMENSIONS,
    Asked,
    Candidate,
    CorpusStats,
    MemoryFilter,
    Query,
    RecallWeights,
    Scored,
    document_terms,
    prepare_query,
    rank,
)

NOON = datetime(2026, 5, 8, 12, tzinfo=UTC)
PLAIN = RecallWeights(
    speaker=0, after_question=0, previous=0, next=0, session=0, question=0, recency=0
)
"""Fusion alone."""


def unit(*parts: float) -> list[float]:
    """A unit vector."""
    vector = np.array(parts, float)
    return [float(x) for x in vector / np.linalg.norm(vector)]


def packed(*parts: float) -> bytes:
    """A unit vector as it is stored."""
    return np.array(unit(*parts), "<f2").tobytes()


def tokens(*axes: int) -> bytes:
    """Token vectors, each along one axis."""
    rows = np.zeros((len(axes), TOKEN_DIMENSIONS), np.int8)
    rows[np.arange(len(axes)), axes] = 127
    return rows.tobytes()


def turn(seq: int, text: str, **changes: object) -> Candidate:
    """A turn of one conversation."""
    plain = Candidate(
        memory_id=str(seq),
        conversation_id="c",
        seq=seq,
        speaker="Ann" if seq % 2 else "Echo",
        role="user" if seq % 2 else "assistant",
        text=text,
        time=NOON + timedelta(minutes=seq),
        vector=None,
        terms=document_terms(text, NOON),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def ranked(
    text: str,
    turns: Sequence[Candidate],
    weights: RecallWeights = PLAIN,
    vector: Sequence[float] | None = None,
    **changes: object,
) -> list[Scored]:
    """Rank ``turns`` as the whole corpus of a user."""
    df = Counter(term for candidate in turns for term in candidate.terms)
    query = replace(prepare_query(text, ()), vector=vector, **changes)  # type: ignore[arg-type]
    return rank(query, turns, CorpusStats(len(turns), df, ("Ann", "Echo")), weights)


def order(scored: Sequence[Scored]) -> list[str]:
    """Ids, best first."""
    return [one.candidate.memory_id for one in scored]


def test_recall_of_nothing_is_nothing() -> None:
    assert ranked("anything", []) == []


def test_recall_by_keyword_prefers_the_rare_word() -> None:
    turns = [turn(1, "tea tea tea"), turn(2, "tea with saffron"), turn(3, "tea"), turn(4, "milk")]
    best = ranked("saffron tea", turns)[0]
    assert best.candidate.memory_id == "2"
    assert (best.reasons.keyword, best.reasons.dense) == (1.0, None)
    assert best.score == pytest.approx(1.0)


def test_recall_scores_dense_above_the_median_of_the_candidates() -> None:
    turns = [turn(n, "x", vector=packed(n, 4 - n)) for n in (1, 2, 3)]
    scored = ranked("nothing shared", turns, vector=unit(1, 0))
    assert order(scored) == ["3", "2", "1"]
    assert [one.reasons.dense for one in scored] == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)
    assert scored[0].reasons.cosine == pytest.approx(3 / 10**0.5, abs=1e-3)


def test_recall_counts_a_vector_not_computed_yet_as_no_evidence() -> None:
    turns = [
        turn(1, "saffron tea"),
        turn(2, "tea", vector=packed(1, 1)),
        turn(3, "milk", vector=packed(0, 1)),
    ]
    scored = ranked("saffron", turns, vector=unit(1, 0))
    assert scored[0].candidate.memory_id == "1"
    assert scored[0].score == pytest.approx(1.0)
    assert scored[0].reasons.dense is None


def test_recall_ignores_vectors_of_another_size() -> None:
    turns = [turn(1, "tea", vector=packed(1, 0, 0)), turn(2, "milk", vector=packed(1, 0))]
    scored = ranked("tea", turns, vector=unit(1, 0))
    assert {one.candidate.memory_id: one.reasons.cosine is None for one in scored} == {
        "1": True,
        "2": False,
    }


def test_recall_adds_max_sim_where_token_vectors_are_there() -> None:
    turns = [
        turn(1, "x", token_vectors=tokens(1, 2, 3)),
        turn(2, "x", token_vectors=tokens(3)),
        turn(3, "x", token_vectors=tokens(9)),
        turn(4, "x"),
    ]
    scored = ranked("y", turns, token_vectors=tokens(1, 3))
    assert order(scored)[0] == "1"
    shares = {one.candidate.memory_id: one.reasons.max_sim for one in scored}
    assert shares["1"] == pytest.approx(1.0)
    assert shares["3"] == 0.0
    assert shares["4"] is None


@pytest.mark.parametrize("asked", [Asked(speaker="ann"), Asked(role="user")])
def test_recall_lifts_the_turns_of_the_speaker_asked_about(asked: Asked) -> None:
    turns = [turn(2, "tea"), turn(1, "tea")]
    scored = ranked("tea", turns, replace(PLAIN, speaker=0.2), asked=asked)
    assert order(scored) == ["1", "2"]
    assert [one.reasons.speaker for one in scored] == [0.2, 0.0]
    assert scored[0].score == pytest.approx(1.0)
    assert scored[1].score == pytest.approx(1 / 1.2)


def test_recall_gives_the_turn_after_a_question_the_larger_share() -> None:
    weights = replace(PLAIN, after_question=0.45, previous=0.1)
    asking, telling = turn(1, "tea in a big cup?"), turn(11, "tea in a big cup")
    turns = [asking, turn(2, "green"), telling, turn(12, "green")]
    gains = {s.candidate.memory_id: s.reasons.neighbours for s in ranked("tea", turns, weights)}
    assert gains == pytest.approx({"1": 0, "2": 0.45, "11": 0, "12": 0.1})


def test_recall_neighbours_end_at_the_conversation_the_window_and_gaps() -> None:
    weights = replace(PLAIN, previous=0.1, next=0.1, session=0.4, window=3)
    turns = [
        turn(5, "saffron"),
        turn(6, "far", conversation_id="other"),
        turn(7, "two on"),
        turn(8, "three on"),
        turn(9, "four on"),
        turn(4, "before"),
        replace(turn(6, "a note"), memory_id="note", conversation_id=None, seq=None),
    ]
    gains = {
        s.candidate.memory_id: s.reasons.neighbours
        for s in ranked("saffron", turns, weights)
        if s.candidate.conversation_id != "other"
    }
    assert gains == pytest.approx({"5": 0.4, "7": 0.4, "8": 0.4, "9": 0.0, "4": 0.5, "note": 0.0})


def test_recall_takes_something_from_a_turn_that_asks_itself() -> None:
    scored = ranked(
        "tea", [turn(1, "tea in a big cup?"), turn(2, "tea")], replace(PLAIN, question=0.1)
    )
    assert order(scored) == ["2", "1"]
    assert scored[1].reasons.neighbours == pytest.approx(-0.1)


def test_recall_by_age_halves_a_score_with_every_half_life() -> None:
    weights = replace(PLAIN, recency=1.0, half_life=timedelta(days=1))
    turns = [turn(1, "tea", time=NOON - timedelta(days=2)), turn(2, "tea", time=NOON)]
    scored = ranked("tea", turns, weights, now=NOON)
    assert order(scored) == ["2", "1"]
    assert [one.score for one in scored] == pytest.approx([1.0, 0.25])
    assert [one.reasons.recency for one in scored] == pytest.approx([1.0, 0.25])


def test_recall_leaves_age_out_unless_it_is_asked_for() -> None:
    old = turn(1, "saffron tea", time=NOON - timedelta(days=2000))
    scored = ranked("saffron", [old, turn(2, "tea")], RecallWeights())
    assert order(scored)[0] == "1"
    assert scored[0].reasons.recency == 1.0
    with pytest.raises(ValueError, match="what time it is"):
        ranked("saffron", [old], RecallWeights(recency=0.5))


def test_recall_breaks_ties_by_the_newer() -> None:
    assert order(ranked("tea", [turn(1, "tea"), turn(3, "tea"), turn(2, "tea")])) == ["3", "2", "1"]


def test_recall_filter_admits_what_meets_every_condition() -> None:
    one = turn(1, "tea", metadata={"k": "v"}, kind="fact")
    assert MemoryFilter().admits(one)
    assert MemoryFilter(
        since=one.time,
        until=one.time + timedelta(microseconds=1),
        conversation_id="c",
        speaker="Ann",
        kinds=frozenset(("fact",)),
        metadata={"k": "v"},
    ).admits(one)
    assert not MemoryFilter(until=one.time).admits(one)
    assert not MemoryFilter(speaker="Echo").admits(one)
    assert not MemoryFilter(metadata={"k": "w"}).admits(one)


@given(
    st.lists(st.sampled_from(["tea", "milk tea?", "saffron", "", "the"]), min_size=1, max_size=12),
    st.booleans(),
)
def test_recall_ranks_any_candidates_completely_and_with_finite_scores(
    texts: list[str], with_vectors: bool
) -> None:
    vector = packed(1, 2) if with_vectors else None
    turns = [turn(n, text, vector=vector) for n, text in enumerate(texts, 1)]
    scored = ranked("saffron tea", turns, RecallWeights(), vector=unit(2, 1))
    assert sorted(order(scored)) == sorted(candidate.memory_id for candidate in turns)
    assert np.isfinite([one.score for one in scored]).all()
    assert [one.score for one in scored] == sorted((o.score for o in scored), reverse=True)
    assert max(one.reasons.fused for one in scored) <= 1.0


def test_recall_needs_no_query_vector_and_no_terms() -> None:
    query = Query(text="?", dense_text="?", terms={})
    scored = rank(query, [turn(1, "tea")], CorpusStats(1, {}))
    assert [one.score for one in scored] == [0.0]


def test_recall_weighs_whose_it_is_more_and_where_less_when_several_things_are_asked_for() -> None:
    weights = RecallWeights()
    several = replace(prepare_query("Which books has Ann read?", ("Ann", "Echo")), vector=None)
    assert weights.of(several).speaker > weights.speaker
    assert weights.of(several).session < weights.session
    assert weights.of(prepare_query("Where is Ann?", ("Ann", "Echo"))) == weights
    assert PLAIN.of(several) == PLAIN


def test_recall_of_one_persons_diary_ranks_what_was_said() -> None:
    diary = [
        turn(n, text, speaker="Ann", role="user")
        for n, text in enumerate(["I bought saffron.", "Rain.", "The roof leaks.", "Quiet."], 1)
    ]
    scored = ranked("What did I buy, saffron?", diary, RecallWeights())
    assert order(scored)[0] == "1"
    assert order(ranked("Does my roof leak?", diary, RecallWeights()))[0] == "3"


def test_recall_of_notes_without_a_conversation_needs_no_neighbours() -> None:
    notes = [
        replace(turn(n, text), conversation_id=None, seq=None)
        for n, text in enumerate(["the code is 4417", "tea at noon", "the code of the bike"], 1)
    ]
    scored = ranked("bike code", notes, RecallWeights())
    assert order(scored)[0] == "3"
    assert all(np.isfinite(one.score) for one in scored)


def test_recall_finds_a_word_at_the_end_of_a_long_note() -> None:
    page = "The weather was grey and nothing happened. " * 500 + "The boat is called Saga."
    scored = ranked("What is the boat called?", [turn(1, "A boat?"), turn(2, page)])
    assert order(scored)[0] == "2"
