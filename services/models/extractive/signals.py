"""How well each recalled turn speaks to the question: word coverage and MaxSim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.models.extractive.calendar_spans import say_day
from services.models.extractive.people import OTHER, SELF, Cast, core, without_names
from services.models.extractive.text import WordWeights, is_question, sentences, words
from services.models.extractive.turns import Query, TokenGrid, Turn
from services.models.extractive.whose import (
    another_instead,
    other_kin,
    other_subject,
    others_thing,
)

# Only the best turns come here, and their own frequencies would make the question's words look
# common: they are weighed as if they were part of a history of this many turns.
ASSUMED_HISTORY_TURNS = 500

# What a turn about somebody else loses, of a score in which the best turn has about 1.5; plateaus
# on the dev conversations.
ASTRAY_KIN = 0.4
ASTRAY_THING = 0.4
ASTRAY_SUBJECT = 0.2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoredTurn:
    """A turn and what the question finds in it.

    Attributes:
        subject: who it is about; `speaker` who said it.
        own_words: its stemmed words; `previous_words` those of the turn before.
        coverage: share of the question's words that its date and text hold, 0..1.
        max_sim: late-interaction score, about 0..1; None when embeddings are away.
        sentence_sims: the same for each of its sentences.
        previous_fused: recall's own score of the turn before, if that asks something; else 0.
        astray: what it loses because it speaks of somebody else than the question, from 0 up.

    """

    turn: Turn
    speaker: str
    subject: str
    own_words: frozenset[str]
    previous_words: frozenset[str]
    coverage: float
    max_sim: float | None
    sentence_sims: tuple[float, ...]
    previous_fused: float
    astray: float = 0.0


@dataclass(frozen=True)
class Signals:
    """The question as the responder reads it, and its turns with their scores."""

    asked: str
    asked_words: frozenset[str]
    named: frozenset[str]
    weights: WordWeights
    turns: tuple[ScoredTurn, ...]


def embedded_question(query: Query) -> str:
    """Returns the text whose token vectors stand for the question: no frame, no speakers' names."""
    return without_names(core(query.text), _names(query))


def measure(query: Query) -> Signals:
    """Scores every turn of the query against its question."""
    cast = Cast.of(query)
    asked = core(query.text)
    own = [words(turn.text) for turn in query.turns]
    documents = [
        words(say_day(turn.day)) + said for turn, said in zip(query.turns, own, strict=True)
    ]
    weights = WordWeights(documents, total=ASSUMED_HISTORY_TURNS)
    asked_words = frozenset(words(without_names(asked, _names(query))))
    late = _LateInteraction(query)
    fused = {(turn.conversation_id, turn.seq): turn.fused for turn in query.turns}
    named = cast.asked_about()
    aim = _Aim(asked, asked_words, named, weights)
    scored = tuple(
        _score(turn, said, cast, weights.share(asked_words, document), late, fused, aim)
        for turn, said, document in zip(query.turns, own, documents, strict=True)
    )
    return Signals(asked, asked_words, named, weights, scored)


@dataclass(frozen=True)
class _Aim:
    """What the question is after, to tell turns that speak of somebody else."""

    asked: str
    asked_words: frozenset[str]
    named: frozenset[str]
    weights: WordWeights

    def astray(self, turn: Turn, speaker: str) -> float:
        """Returns what the turn loses because it speaks of somebody else."""
        around = f"{turn.previous_text} {turn.text}"
        lost = ASTRAY_KIN * other_kin(self.asked, around)
        wrong_thing = others_thing(self.asked, turn.text) or self._another(turn, speaker)
        lost += ASTRAY_THING * wrong_thing
        return lost + ASTRAY_SUBJECT * self._misses_subject(turn, speaker)

    def _another(self, turn: Turn, speaker: str) -> bool:
        if self.named != {speaker}:
            return False
        return another_instead(self.asked, self.asked_words, self.weights, turn.text)

    def _misses_subject(self, turn: Turn, speaker: str) -> bool:
        if len(self.named) != 1:
            return False
        person, others = (SELF, OTHER) if speaker in self.named else (OTHER, SELF)
        return other_subject(self.asked_words, self.weights, turn.text, person, others)


def _names(query: Query) -> set[str]:
    return {turn.speaker for turn in query.turns} | {query.user_name, query.companion_name}


def _score(
    turn: Turn,
    said: Sequence[str],
    cast: Cast,
    coverage: float,
    late: _LateInteraction,
    fused: dict[tuple[str, int], float],
    aim: _Aim,
) -> ScoredTurn:
    max_sim, sentence_sims = late.of(turn.text)
    speaker = cast.speaker(turn)
    asked_before = is_question(turn.previous_text)
    before = fused.get((turn.conversation_id, turn.seq - 1), 0.0)
    return ScoredTurn(
        turn=turn,
        speaker=speaker,
        subject=cast.subject(turn),
        own_words=frozenset(said),
        previous_words=frozenset(words(turn.previous_text)),
        coverage=coverage,
        max_sim=max_sim,
        sentence_sims=sentence_sims,
        previous_fused=before if asked_before else 0.0,
        astray=aim.astray(turn, speaker),
    )


class _LateInteraction:
    """MaxSim: the weighted mean, over the question's tokens, of the best cosine with a text's."""

    def __init__(self, query: Query) -> None:
        self._grids = query.grids
        self._asked = query.grids.get(embedded_question(query))
        texts = [grid for turn in query.turns if (grid := query.grids.get(turn.text))]
        self._weights = _token_weights(self._asked, texts)
        self._total = self._weights.sum()

    def of(self, text: str) -> tuple[float | None, tuple[float, ...]]:
        """Returns the scores of the text and of its sentences; None and 0s without vectors."""
        grid = self._grids.get(text)
        parts = sentences(text)
        if self._asked is None or grid is None or not len(self._asked.ids) or not len(grid.ids):
            return None, (0.0,) * len(parts)
        cosines = self._asked.vectors @ grid.vectors.T
        whole = self._mean(cosines)
        return whole, tuple(
            whole if len(rows) == len(grid.ids) else self._mean(cosines[:, rows])
            for rows in _rows_of(text, parts, grid)
        )

    def _mean(self, cosines: npt.NDArray[np.float32]) -> float:
        if not cosines.shape[1]:
            return 0.0
        return float((self._weights * cosines.max(axis=1)).sum() / self._total)


def _token_weights(asked: TokenGrid | None, texts: Sequence[TokenGrid]) -> Floats:
    if asked is None:
        return np.ones(1)
    frequency: dict[int, int] = {}
    for grid in texts:
        for token in set(grid.ids):
            frequency[token] = frequency.get(token, 0) + 1
    total = max(len(texts), ASSUMED_HISTORY_TURNS)
    counts = np.array([frequency.get(token, 0) for token in asked.ids], dtype=np.float64)
    return np.log(1 + (total - counts + 0.5) / (counts + 0.5))


def _rows_of(text: str, parts: Sequence[str], grid: TokenGrid) -> list[npt.NDArray[np.intp]]:
    """The tokens of each sentence, by where the sentences begin and end in the text."""
    starts, rows, position = np.asarray(grid.starts), [], 0
    for part in parts:
        begin = text.index(part, position)
        position = begin + len(part)
        rows.append(np.flatnonzero((starts >= begin) & (starts < position)))
    return rows
