"""Reading the days that a phrase means: the data's gold answers and the replies' own words.

Both say things like "7 May 2023", "the week before 9 June 2023" or "summer 2022"; this reader is
the benchmark's own and shares nothing with the product.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, timedelta

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_WEEKDAYS = {name.lower(): number for number, name in enumerate(calendar.day_name)}
_COUNTS = {"two": 2, "three": 3, "four": 4, "few": 3, "couple": 2}
_SEASONS = {"spring": (3, 5), "summer": (6, 8), "fall": (9, 11), "autumn": (9, 11)}

_MONTH = "|".join(_MONTHS)
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\b,? ?(\d{{4}})")
_MONTH_FIRST = re.compile(rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})")
_RELATIVE = re.compile(r"(?:(\w+) )?(\w+?)s? (before|after|of) (?=\d|[a-z]+ \d)")
_WHOLE_MONTH = re.compile(rf"\b({_MONTH})\W{{1,2}}((?:19|20)\d\d)\b")
_SEASON = re.compile(rf"\b({'|'.join(_SEASONS)})(?: of)? ((?:19|20)\d\d)\b")
_YEAR = re.compile(r"\b((?:19|20)\d\d)\b")

WEEK_DAYS = 6
"""An answer may be this much wider than the gold one: the data itself says "the week before"."""


@dataclass(frozen=True)
class Span:
    """Days from `first` to `last`, both included."""

    first: date
    last: date

    def agrees_with(self, gold: Span) -> bool:
        """Whether the two overlap and this one is no wider than a week, or than `gold`."""
        overlap = self.first <= gold.last and gold.first <= self.last
        width = (self.last - self.first).days
        return overlap and width <= max(WEEK_DAYS, (gold.last - gold.first).days)


def read_span(text: str) -> Span | None:
    """Return the days that `text` means, by its first date; None if it names none."""
    plain = " ".join(text.lower().replace("`", "").split())
    try:
        found = _first_day(plain)
        if found is not None:
            day, before = found
            return _relative(before, day) or Span(day, day)
        return _longer(plain)
    except ValueError:
        return None


def _first_day(text: str) -> tuple[date, str] | None:
    """The first full date, and the text from before it up to its place."""
    hits = []
    if match := _DAY_FIRST.search(text):
        hits.append((match.start(), date(int(match[3]), _MONTHS[match[2]], int(match[1]))))
    if match := _MONTH_FIRST.search(text):
        hits.append((match.start(), date(int(match[3]), _MONTHS[match[1]], int(match[2]))))
    if not hits:
        return None
    place, day = min(hits)
    return day, text[:place] + str(day.day)


def _relative(before: str, day: date) -> Span | None:
    """Days told from a day: "the week before", "two weekends before", "the Friday after" it."""
    match = _RELATIVE.search(before)
    if match is None or before[match.end() :].strip("0123456789 "):
        return None
    count, unit, side = _COUNTS.get(match[1] or "", 1), match[2], match[3]
    if side == "of":
        return _shifted(day, -WEEK_DAYS, WEEK_DAYS)
    sign = -1 if side == "before" else 1
    if unit in _WEEKDAYS:
        days = sign * ((sign * (_WEEKDAYS[unit] - day.weekday())) % 7 or 7)
        return _shifted(day, days, days)
    if unit == "day":
        return _shifted(day, sign * count, sign * count)
    if unit == "weekend":
        return _weekend(day, sign, count)
    if unit == "week":
        near, far = 7 * (count - 1) + 1, 7 * count
        return _shifted(day, -far, -near) if sign < 0 else _shifted(day, near, far)
    return _shifted(day, -7, 7)


def _weekend(day: date, sign: int, count: int) -> Span:
    """The weekend `count` before or after a day; a running one counts as after."""
    if sign > 0:
        ahead = (5 - day.weekday()) % 7
        return _shifted(day, ahead, ahead + 1)
    back = (day.weekday() - 5) % 7 or 7
    back = 8 if day.weekday() == 6 else back
    back += 7 * (count - 1)
    return _shifted(day, -back, 1 - back)


def _shifted(day: date, first: int, last: int) -> Span:
    return Span(day + timedelta(days=first), day + timedelta(days=last))


def _longer(text: str) -> Span | None:
    """A season, a month or a year."""
    if match := _SEASON.search(text):
        first, last = _SEASONS[match[1]]
        return _months(int(match[2]), first, last)
    if match := _WHOLE_MONTH.search(text):
        return _months(int(match[2]), _MONTHS[match[1]], _MONTHS[match[1]])
    match = _YEAR.search(text)
    return _months(int(match[1]), 1, 12) if match else None


def _months(year: int, first: int, last: int) -> Span:
    return Span(date(year, first, 1), date(year, last, calendar.monthrange(year, last)[1]))
