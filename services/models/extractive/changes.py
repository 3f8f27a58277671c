"""When the same thing was said twice with different content: which of the two a question wants."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from services.models.extractive.pick import Candidate
from services.models.extractive.questions import QuestionType, fits, question_type
from services.models.extractive.signals import ScoredTurn, Signals
from services.models.extractive.text import is_question, plain_quotes, sentences, statements, words
from services.models.extractive.turns import COMPANION, USER

# The share of the question's words that one sentence of both turns must have.
_SAME_COVERAGE = 0.75
# How much worse it may score: much if it says that something changed, for it may use other words
# too; then its meaning must be near.
_SCORE_SLACK = 0.2
_SCORE_SLACK_CHANGE = 0.5
_SCORE_SLACK_OTHER_WORDS = 0.3
_SIM_SHARE = 0.85

# What happened does not change any more, and a list has no newest item.
_PAST_OR_LIST = re.compile(
    r"\b(did|was|were|had|ago|last|ever|when|happened|used)\b|"
    r"\b(have|has) (i|you|we|he|she|they)\b|"
    r"^\W*(what|which) (kinds?|types?|sorts?|(?!is\b|does\b|was\b|has\b)\w+s)\b",
    re.IGNORECASE,
)
_FORMER = re.compile(
    r"\b(old|previous(ly)?|former(ly)?|used to|original(ly)?|at first|before that)\b|"
    r"\bbefore\W*$",
    re.IGNORECASE,
)
# "Where do I live" is answered by "I live", or by the companion's "you live", not by "my sister
# lives".
_I = re.compile(r"\b(i|we)\b", re.IGNORECASE)
_YOU = re.compile(r"\byou\b", re.IGNORECASE)
_CHANGE = re.compile(
    r"\b(now|no longer|any ?more|changed?|moved|switched|instead|replaced|new|actually|"
    r"from now on|these days|not .{1,30} any more)\b",
    re.IGNORECASE,
)
# Words that say which of the statements is wanted, and so need not stand in it.
_WHICH_ONE = frozenset(words("before old previous previously former original first now currently"))
_HOLDS_NOW = frozenset(
    (QuestionType.WHAT, QuestionType.WHO, QuestionType.WHERE, QuestionType.NUMBER)
)


def in_force(signals: Signals, ranked: Sequence[Candidate]) -> tuple[Candidate, Candidate | None]:
    """Returns the statement that answers, and another of the same thing from another time.

    A question about how things are wants the newest statement; one about how they were ("my old
    code") the oldest. Any other question wants the best.

    Args:
        signals: the question.
        ranked: at least one candidate, best first.

    """
    top = ranked[0]
    former = bool(_FORMER.search(signals.asked))
    if not former and not _asks_how_it_is(signals.asked):
        return top, None
    top = _stating(signals, ranked)
    same = [top, *(o for o in ranked if o is not top and _same_attribute(signals, top, o))]
    ordered = sorted(same, key=_when, reverse=not former)
    chosen = ordered[0]
    others = (other for other in same if _day(other) != _day(chosen))
    return chosen, max(others, key=lambda other: other.score, default=None)


def _stating(signals: Signals, ranked: Sequence[Candidate]) -> Candidate:
    """The best candidate that states the thing itself, if it is nearly as good as the best."""
    for candidate in ranked:
        if candidate.score < ranked[0].score - _SCORE_SLACK:
            break
        if _in_one_sentence(signals, candidate.scored) >= _SAME_COVERAGE:
            return candidate
    return ranked[0]


def _when(candidate: Candidate) -> tuple[dt.datetime, int]:
    return candidate.scored.turn.said_at, candidate.scored.turn.seq


def _day(candidate: Candidate) -> dt.date:
    return candidate.scored.turn.day


def _asks_how_it_is(asked: str) -> bool:
    return question_type(asked) in _HOLDS_NOW and not _PAST_OR_LIST.search(asked)


def _same_attribute(signals: Signals, top: Candidate, other: Candidate) -> bool:
    if top.scored.subject != other.scored.subject:
        return False
    kind = question_type(signals.asked)
    if _fit(other.scored, kind) < _fit(top.scored, kind):
        return False
    change, behind = _says_change(top, other), top.score - other.score
    if _same_words(signals, top.scored, other.scored):
        return behind <= (_SCORE_SLACK_CHANGE if change else _SCORE_SLACK)
    near = (other.scored.max_sim or 0) >= _SIM_SHARE * (top.scored.max_sim or 1)
    return change and near and behind <= _SCORE_SLACK_OTHER_WORDS


def _fit(scored: ScoredTurn, kind: QuestionType) -> float:
    return fits(kind, statements(scored.turn.text))


def _same_words(signals: Signals, top: ScoredTurn, other: ScoredTurn) -> bool:
    return min(_in_one_sentence(signals, top), _in_one_sentence(signals, other)) >= _SAME_COVERAGE


def _in_one_sentence(signals: Signals, scored: ScoredTurn) -> float:
    """The largest share of the question's words that a single statement of the turn holds."""
    wanted = signals.asked_words - _WHICH_ONE
    stated = [part for part in sentences(scored.turn.text) if not is_question(part)]
    if subject := _subject(signals.asked, scored.speaker):
        stated = [part for part in stated if subject.search(plain_quotes(part))]
    shares = (signals.weights.share(wanted, words(part)) for part in stated)
    return max(shares, default=0.0)


def _subject(asked: str, speaker: str) -> re.Pattern[str] | None:
    """The word for the asked person in the speaker's mouth, if the question has one."""
    if _I.search(asked):
        return _I if speaker == USER else _YOU
    if _YOU.search(asked):
        return _I if speaker == COMPANION else _YOU
    return None


def _says_change(top: Candidate, other: Candidate) -> bool:
    newer = other.scored.turn.said_at > top.scored.turn.said_at
    return newer and bool(_CHANGE.search(other.scored.turn.text))
