"""Which turn answers best, and which of its sentences to quote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.models.extractive.questions import QuestionType, fits, has_marks, question_type
from services.models.extractive.signals import ScoredTurn, Signals
from services.models.extractive.text import is_question, sentences, statements

# Recall's best this many are weighed; more only add noise.
CANDIDATES = 10

# Plateaus on the dev conversations; see design notes of the extractive responder.
_SPEAKER_BONUS = 0.2
_TYPE_BONUS = 0.2
_WHEN_BONUS = 0.2
_WHEN_REPLY_PENALTY = 0.4
_CONTEXT_BONUS = 0.2

# A quote of 25 words loses 6 points of contained answers; more than 40 is a wall of text.
QUOTE_WORDS = 40
_QUOTE_TYPE_BONUS = 0.2
_QUOTE_LENGTH_BONUS = 0.3


@dataclass(frozen=True)
class Candidate:
    """A turn that may answer, with its score; comparable within one question only."""

    scored: ScoredTurn
    score: float


def rank(signals: Signals) -> list[Candidate]:
    """Returns recall's best turns, the one to quote first."""
    best = sorted(signals.turns, key=lambda scored: -scored.turn.score)[:CANDIDATES]
    kind = question_type(signals.asked)
    candidates = [Candidate(scored, _score(scored, kind, signals)) for scored in best]
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _score(scored: ScoredTurn, kind: QuestionType, signals: Signals) -> float:
    match = fits(kind, statements(scored.turn.text))
    score = scored.turn.score + _TYPE_BONUS * match - scored.astray
    if len(signals.named) == 1 and scored.speaker in signals.named:
        score += _SPEAKER_BONUS
    if kind is QuestionType.WHEN:
        return score + _WHEN_BONUS * match - _WHEN_REPLY_PENALTY * scored.previous_fused
    return score + _CONTEXT_BONUS * _supplied_by_previous(scored, signals)


def _supplied_by_previous(scored: ScoredTurn, signals: Signals) -> float:
    """The share of the question's words that the turn before has and this one need not repeat."""
    supplied = signals.asked_words & scored.previous_words - scored.own_words
    return signals.weights.share(signals.asked_words, supplied)


def quote(scored: ScoredTurn, kind: QuestionType, limit: int = QUOTE_WORDS) -> str:
    """Returns the best run of whole sentences of at most `limit` words, not only questions."""
    parts = sentences(scored.turn.text)
    runs = list(_runs([len(part.split()) for part in parts], limit))
    answering = [run for run in runs if _states_something(parts[slice(*run)])]
    begin, end = max(answering or runs, key=lambda run: _run_score(scored, parts, run, kind, limit))
    return _cut(" ".join(parts[begin:end]), limit)


def _runs(lengths: list[int], limit: int) -> Iterator[tuple[int, int]]:
    """Every run of sentences, from and to (exclusive), within the limit; each alone in any case."""
    for begin, total in enumerate(lengths):
        yield begin, begin + 1
        for end in range(begin + 1, len(lengths)):
            total += lengths[end]
            if total > limit:
                break
            yield begin, end + 1


def _length(parts: list[str]) -> int:
    return sum(len(part.split()) for part in parts)


def _states_something(parts: list[str]) -> bool:
    return any(not is_question(part) for part in parts)


def _run_score(
    scored: ScoredTurn, parts: list[str], run: tuple[int, int], kind: QuestionType, limit: int
) -> float:
    said = parts[slice(*run)]
    stated = _length([part for part in said if not is_question(part)])
    score = (
        max(scored.sentence_sims[slice(*run)]) + _QUOTE_LENGTH_BONUS * min(stated, limit) / limit
    )
    return score + _QUOTE_TYPE_BONUS * fits(kind, " ".join(said)) * has_marks(kind)


def _cut(text: str, limit: int) -> str:
    said = text.split()
    return " ".join(said[:limit]) + (" ..." if len(said) > limit else "")
