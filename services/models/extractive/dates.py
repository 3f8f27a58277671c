"""Resolving "last Saturday" and its kin against the day on which it was said.

A session's own date is wrong for four of five "when" questions; the first time expression of the
quote, resolved, is right for about 83 of 100 (LoCoMo dev).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable

from services.models.extractive.calendar_spans import (
    MONTHS,
    WEEKDAYS,
    DaySpan,
    days_from,
    month_span,
    nearest_year,
    one_day,
    say_day,
    season_span,
    weekday_near,
    weekend_after,
    weekend_before,
    year_span,
)
from services.models.extractive.text import plain_quotes

_Rule = Callable[[re.Match[str], dt.date], DaySpan]

_COUNTS = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ]
    )
} | {"a": 1, "an": 1, "couple": 2, "few": 3, "several": 3}

_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_DAY_NAME = "|".join(WEEKDAYS)
_DAY_SHORT = f"{_DAY_NAME}|sun|mon|tues?|wed|thurs?|fri|sat"
_ORDINAL = r"(\d{1,2})(?:st|nd|rd|th)?"
_FUTURE = re.compile(
    r"\b(will|won't|going to|gonna|planning|plan to|scheduled|looking forward)\b|'ll\b|"
    r"(\b(is|are|am)|'(s|m|re)) $"
)


def _count(word: str) -> int:
    return int(word) if word.isdigit() else _COUNTS[word]


def _year(text: str | None, said_on: dt.date, month: int) -> int:
    return int(text) if text else nearest_year(said_on, month)


def _day_of_month(day: str, month: str, year: str | None, said_on: dt.date) -> DaySpan:
    number = MONTHS[month]
    return one_day(dt.date(_year(year, said_on, number), number, int(day)))


def _weeks_ago(match: re.Match[str], said_on: dt.date) -> DaySpan:
    middle = days_from(said_on, -7 * _count(match[1]))
    label = f"{match[1]} weeks before {say_day(said_on)}"
    return DaySpan(days_from(middle, -3), days_from(middle, 3), label)


def _week_before(_: re.Match[str], said_on: dt.date) -> DaySpan:
    label = f"the week before {say_day(said_on)}"
    return DaySpan(days_from(said_on, -7), days_from(said_on, -1), label)


def _week_after(_: re.Match[str], said_on: dt.date) -> DaySpan:
    label = f"the week after {say_day(said_on)}"
    return DaySpan(days_from(said_on, 1), days_from(said_on, 7), label)


def _week_of(_: re.Match[str], said_on: dt.date) -> DaySpan:
    monday = days_from(said_on, -said_on.weekday())
    return DaySpan(monday, days_from(monday, 6), f"the week of {say_day(said_on)}")


def _named_month(match: re.Match[str], said_on: dt.date) -> DaySpan:
    month = MONTHS[match[1]]
    return month_span(_year(match[2], said_on, month), month)


def _plain_weekday(match: re.Match[str], said_on: dt.date) -> DaySpan:
    """A bare "on Friday" looks back, unless what is said before it is about the future."""
    past = not _FUTURE.search(match.string[: match.start()])
    return weekday_near(match[1], said_on, past=past)


def _months_from(said_on: dt.date, months: int) -> DaySpan:
    return month_span(said_on.year, said_on.month + months)


# Most specific first: of two expressions that begin at the same place, the earlier rule wins.
_TABLE: tuple[tuple[str, _Rule], ...] = (
    (
        rf"\b{_ORDINAL}(?: of)? ({_MONTH})\b,?(?: (\d{{4}}))?",
        lambda m, day: _day_of_month(m[1], m[2], m[3], day),
    ),
    (
        rf"\b({_MONTH})\.? {_ORDINAL}\b,?(?: (\d{{4}}))?",
        lambda m, day: _day_of_month(m[2], m[1], m[3], day),
    ),
    (r"\bday before yesterday\b", lambda m, day: one_day(days_from(day, -2))),
    (r"\bday after tomorrow\b", lambda m, day: one_day(days_from(day, 2))),
    (r"\b(?:yesterday|last night)\b", lambda m, day: one_day(days_from(day, -1))),
    (r"\btomorrow\b", lambda m, day: one_day(days_from(day, 1))),
    (r"\b(?:today|tonight|this (?:morning|afternoon|evening))\b", lambda m, day: one_day(day)),
    (r"\b(\w+)(?: of)? days? ago\b", lambda m, day: one_day(days_from(day, -_count(m[1])))),
    (
        r"\b(?:last|past|this past|other) weekend\b|\bover the weekend\b",
        lambda m, day: weekend_before(day),
    ),
    (r"\b(\w+)(?: of)? weekends? ago\b", lambda m, day: weekend_before(day, _count(m[1]))),
    (r"\b(?:next|this|this coming) weekend\b", lambda m, day: weekend_after(day)),
    (r"\b(?:last|past) week\b|\ba week ago\b", _week_before),
    (r"\b(\w+)(?: of)? weeks? ago\b", _weeks_ago),
    (r"\bnext week\b", _week_after),
    (r"\bthis week\b", _week_of),
    (
        rf"\b(?:last|this past|past) ({_DAY_SHORT})\b",
        lambda m, day: weekday_near(m[1], day, past=True),
    ),
    (
        rf"\b(?:next|this|this coming) ({_DAY_NAME})\b",
        lambda m, day: weekday_near(m[1], day, past=False),
    ),
    (rf"\bon ({_DAY_NAME})\b", _plain_weekday),
    (r"\b(?:last|past) month\b|\ba month ago\b", lambda m, day: _months_from(day, -1)),
    (r"\bnext month\b", lambda m, day: _months_from(day, 1)),
    (r"\bthis month\b", lambda m, day: _months_from(day, 0)),
    (r"\b(\w+)(?: of)? months? ago\b", lambda m, day: _months_from(day, -_count(m[1]))),
    (r"\blast year\b|\ba year ago\b", lambda m, day: year_span(day.year - 1)),
    (r"\bnext year\b", lambda m, day: year_span(day.year + 1)),
    (r"\b(\w+)(?: of)? years? ago\b", lambda m, day: year_span(day.year - _count(m[1]))),
    (
        r"\b(last|this|next) (spring|summer|fall|autumn|winter)\b",
        lambda m, day: season_span(m[1], m[2], day),
    ),
    (
        rf"\b(?:in|this|since|early|late|mid|during|until|by) ({_MONTH})\b(?: (\d{{4}}))?",
        _named_month,
    ),
    (r"\b(?:in|since|back in) ((?:19|20)\d\d)\b", lambda m, day: year_span(int(m[1]))),
)
_RULES = tuple((re.compile(pattern), rule) for pattern, rule in _TABLE)


def resolve(text: str, said_on: dt.date) -> DaySpan | None:
    """Resolves the first time expression of `text`.

    Args:
        text: what was said.
        said_on: the day on which it was said.

    Returns:
        The days meant and how to say them, or None when the text names no time that exists.

    """
    lowered = plain_quotes(text.lower())
    found = [hit for pattern, rule in _RULES if (hit := _first(pattern, rule, lowered, said_on))]
    return min(found, key=lambda hit: hit[0])[1] if found else None


def _first(
    pattern: re.Pattern[str], rule: _Rule, text: str, said_on: dt.date
) -> tuple[int, DaySpan] | None:
    """The first match that means a real time: "many days ago" and "31 June" mean none."""
    for match in pattern.finditer(text):
        try:
            return match.start(), rule(match, said_on)
        except (KeyError, ValueError, OverflowError):
            continue
    return None
