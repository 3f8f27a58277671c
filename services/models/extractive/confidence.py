"""How sure it is that the memories hold an answer at all, and what to say at each degree of it."""

from __future__ import annotations

import math
from enum import Enum
from statistics import fmean

from services.models.extractive.questions import fits, has_marks, question_type
from services.models.extractive.signals import ScoredTurn, Signals
from services.models.extractive.text import is_question, statements
from services.models.extractive.whose import other_thing_named

# Logistic regression on the dev conversations, over the best 20 turns of a recall.
_BIAS = -5.2
_SUPPORT = 5.0
_DIFFERENCE = 14.0
# Without token vectors only coverage is left; the bias is 0.2 more careful than the fit.
_BIAS_WORDS = -3.4
_COVERAGE_WORDS = 7.0

ANSWER_FROM = 0.59
UNSURE_FROM = 0.24

# What a turn without the kind of thing asked for ("where": no place) lends less; .1 to .3 is a
# plateau on the dev conversations.
_UNFIT = 0.3
# And one that lacks what the asked thing is ("blood type": a blood test).
_OTHER_THING = 0.25

# A companion mostly asks: that its turns fit badly says little for the user's.
_MOST_DIFFERENCE = 0.1

# How many of a person's best turns speak for that person; with fewer, the two cannot be compared.
_SPOKEN_FOR = 3


class Band(Enum):
    """What to say: the quote, the quote with a doubt, or that nothing is known."""

    ANSWER = "answer"
    UNSURE = "unsure"
    UNKNOWN = "unknown"


def answerable(signals: Signals) -> float:
    """Returns the probability (0..1) that the recalled turns hold an answer.

    It says "answerable", not "this quote is right".
    """
    about = [scored for scored in signals.turns if _is_about(scored, signals)]
    if all(scored.max_sim is None for scored in signals.turns):
        return _sigmoid(
            _BIAS_WORDS + _COVERAGE_WORDS * max((s.coverage - s.astray for s in about), default=0.0)
        )
    support = max((_support(s, signals.asked) for s in about), default=0.0)
    return _sigmoid(_BIAS + _SUPPORT * support + _DIFFERENCE * _difference(signals))


def band(probability: float) -> Band:
    """Returns what to say at that probability."""
    if probability >= ANSWER_FROM:
        return Band.ANSWER
    return Band.UNSURE if probability >= UNSURE_FROM else Band.UNKNOWN


def _is_about(scored: ScoredTurn, signals: Signals) -> bool:
    return len(signals.named) != 1 or scored.subject in signals.named


def _support(scored: ScoredTurn, asked: str) -> float:
    """How far one turn supports that there is an answer."""
    kind, turn = question_type(asked), scored.turn
    lost = scored.astray
    if has_marks(kind):
        lost += _UNFIT * (1 - fits(kind, statements(turn.text)))
    if other_thing_named(asked, f"{turn.previous_text} {turn.text}"):
        lost += _OTHER_THING
    return _sim(scored) + scored.coverage - lost


def _difference(signals: Signals) -> float:
    """How much better the named person's turns fit than the others'; 0 unless one is named.

    In a chat nearly all of what is recalled is the user's: then there is nothing to compare with.
    """
    if len(signals.named) != 1:
        return 0.0
    said = [scored for scored in signals.turns if not is_question(scored.turn.text)]
    mine = sorted(_sim(scored) for scored in said if scored.subject in signals.named)
    theirs = sorted(_sim(scored) for scored in said if scored.subject not in signals.named)
    if min(len(mine), len(theirs)) < _SPOKEN_FOR:
        return 0.0
    gap = fmean(mine[-_SPOKEN_FOR:]) - fmean(theirs[-_SPOKEN_FOR:])
    return min(gap, _MOST_DIFFERENCE)


def _sim(scored: ScoredTurn) -> float:
    return scored.max_sim or 0.0


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
