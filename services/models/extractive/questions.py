"""What kind of answer a question wants, and whether a turn holds that kind of thing."""

from __future__ import annotations

import re
from enum import StrEnum

_KIN = (
    r"mom|mum|mother|dad|father|parents?|sister|brother|husband|wife|son|daughter|kids?|children|"
    r"friends?|mentors?|family|boyfriend|girlfriend|partner|grandma|grandpa|grandmother|grandfather|"
    r"cousin|aunt|uncle|colleagues?|coworkers?|boss|neighbou?rs?"
)
_MONTHS = "january|february|march|april|june|july|august|september|october|november|december"


class QuestionType(StrEnum):
    """The kind of answer a question wants."""

    WHEN = "when"
    NUMBER = "number"
    WHO = "who"
    WHERE = "where"
    WHY = "why"
    YES_NO = "yes_no"
    HOW = "how"
    WHAT = "what"


_OPENINGS = (
    (
        QuestionType.WHEN,
        r"(when|(on |in )?(what|which) (date|day|month|year)|(at )?what time|.*\bwhat year)\b",
    ),
    (QuestionType.NUMBER, r"how (many|much|long|often|old)\b"),
    (QuestionType.WHO, r"((to |with )?(who|whose|whom))\b"),
    (QuestionType.WHERE, r"(where|(in |at )?(what|which) (city|country|state|place))\b"),
    (QuestionType.WHY, r"(why|what (inspired|motivated|made|prompted|reason))\b"),
    (
        QuestionType.YES_NO,
        r"(did|does|do|is|am|are|was|were|has|have|had|would|will|can|could)\b",
    ),
    (QuestionType.HOW, r"how\b"),
)
_TYPES = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _OPENINGS)

_TIME = re.compile(
    r"\b(yesterday|today|tonight|tomorrow|last|next|ago|recently|just|since|soon|upcoming|weekend|"
    r"this (?:week|weekend|month|year|morning|evening|summer|spring|fall|winter|past)|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|past (?:week|weekend|month)|"
    rf"{_MONTHS}|(?:19|20)\d\d|\d+(?:st|nd|rd|th))\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\b(\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|dozen|twice|once|couple|"
    r"hundreds?|years?|months?|weeks?)\b",
    re.IGNORECASE,
)
_NAME_INSIDE = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
_KIN_WORD = re.compile(rf"\b({_KIN})\b", re.IGNORECASE)
_PLACE = re.compile(
    r"\b(?:in|at|to|from|near|on|through|around|outside|inside)\s+"
    r"(?:[A-Z][a-z]+|(?:the|a|an|my|our|this)\s+\w+)"
)
_REASON = re.compile(
    r"\b(because|since|so that|'?cause|so I|to \w+|inspired|reason|makes? me|help(?:s|ed)?)\b",
    re.IGNORECASE,
)
_MARKS: dict[QuestionType, tuple[re.Pattern[str], ...]] = {
    QuestionType.WHEN: (_TIME,),
    QuestionType.NUMBER: (_NUMBER,),
    QuestionType.WHO: (_NAME_INSIDE, _KIN_WORD),
    QuestionType.WHERE: (_PLACE,),
    QuestionType.WHY: (_REASON,),
}

# Questions whose answers carry no mark of their own: neither for nor against a turn.
_NO_MARK = 0.5


def question_type(question: str) -> QuestionType:
    """Returns the kind of answer a question wants; anything unusual is WHAT."""
    opening = question.strip()
    return next((kind for kind, pattern in _TYPES if pattern.match(opening)), QuestionType.WHAT)


def has_marks(kind: QuestionType) -> bool:
    """Whether answers of this kind can be told by their words."""
    return kind in _MARKS


def fits(kind: QuestionType, text: str) -> float:
    """Returns 1 if the text holds what the question wants, 0 if not, 0.5 where no word can tell."""
    if not has_marks(kind):
        return _NO_MARK
    return float(any(mark.search(text) for mark in _MARKS[kind]))
