"""The extractive responder: from a message and its recalled turns to an honest reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.models.extractive import phrasing
from services.models.extractive.changes import in_force
from services.models.extractive.confidence import Band, answerable, band
from services.models.extractive.intent import Intent, intent_of, question_in
from services.models.extractive.pick import Candidate, rank
from services.models.extractive.questions import question_type
from services.models.extractive.signals import ScoredTurn, Signals, measure
from services.models.extractive.text import statements
from services.models.extractive.turns import Query, Turn

# A second quote this near to the first raises "either is right" from 60 to 68 of 100.
SECOND_WITHIN = 0.2


@dataclass(frozen=True)
class Reply:
    """What to say.

    Attributes:
        text: the reply.
        quoted_ids: the turns it quotes, best first.
        confidence: probability that the memories hold an answer, 0..1; 1 for small talk.

    """

    text: str
    quoted_ids: tuple[str, ...] = ()
    confidence: float = 1.0


def prepare(query: Query) -> Query | None:
    """Returns the query as it is to be answered, or None if the message needs no memory.

    The question is cut out of the message; turns that cannot answer are left out: the message
    itself, turns that only ask, and earlier replies of this responder, which only repeat.
    """
    if intent_of(query.text) is not Intent.QUESTION:
        return None
    turns = [turn for turn in query.turns if _can_answer(turn, query.text)]
    return replace(query, text=question_in(query.text), turns=turns)


def _can_answer(turn: Turn, message: str) -> bool:
    if turn.from_assistant and phrasing.is_echo(turn.text):
        return False
    return turn.text.strip() != message.strip() and bool(statements(turn.text).strip())


def respond(query: Query) -> Reply:
    """Answers a query.

    Args:
        query: the user's message as it came, or what `prepare` made of it with token vectors.

    Returns:
        A quotation with its date, a doubtful one, "I don't know that", or small talk.

    """
    prepared = prepare(query)
    if prepared is None:
        return Reply(phrasing.small_talk(intent_of(query.text), query.companion_name))
    if not prepared.turns:
        return Reply(phrasing.UNKNOWN_NO_MEMORIES, confidence=0.0)
    signals = measure(prepared)
    confidence = answerable(signals)
    return _phrase(signals, rank(signals), confidence)


def _phrase(signals: Signals, ranked: Sequence[Candidate], confidence: float) -> Reply:
    sure = band(confidence)
    if sure is Band.UNKNOWN:
        return Reply(phrasing.UNKNOWN_NOTHING_NEAR, confidence=confidence)
    if sure is Band.UNSURE:
        best = in_force(signals, ranked)[0].scored
        text = phrasing.doubtful(best, question_type(signals.asked), signals.asked)
        return Reply(text, (best.turn.id,), confidence)
    return _answer(signals, ranked, confidence)


def _answer(signals: Signals, ranked: Sequence[Candidate], confidence: float) -> Reply:
    kind, asked = question_type(signals.asked), signals.asked
    best, other = in_force(signals, ranked)
    parts = [phrasing.quotation(best.scored, kind, asked)]
    quoted = [best.scored]
    if other is not None:
        parts.append(phrasing.other_time(other.scored, best.scored, kind, asked))
        quoted.append(other.scored)
    elif second := _second(signals, ranked, best):
        parts.append(phrasing.also(second, kind, asked))
        quoted.append(second)
    return Reply(" ".join(parts), tuple(scored.turn.id for scored in quoted), confidence)


def _second(signals: Signals, ranked: Sequence[Candidate], best: Candidate) -> ScoredTurn | None:
    """The next best turn, if it scores nearly as well, as much to the point, with other words."""
    near = (
        candidate.scored
        for candidate in ranked[:2]
        if candidate is not best
        and candidate.score >= best.score - SECOND_WITHIN
        and candidate.scored.turn.text != best.scored.turn.text
        and candidate.scored.astray <= best.scored.astray
        and (len(signals.named) != 1 or candidate.scored.subject == best.scored.subject)
    )
    return next(near, None)
