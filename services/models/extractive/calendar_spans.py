"""Days, weeks, months and seasons as spans of days, each with the words that say it."""

from __future__ import annotations

import calendar
import datetime as dt
from dataclasses import dataclass

WEEKDAYS = {name.lower(): index for index, name in enumerate(calendar.day_name)}
MONTHS = {name.lower(): index for index, name in enumerate(calendar.month_name) if name}
MONTHS.update({name.lower(): index for index, name in enumerate(calendar.month_abbr) if name})
MONTHS["sept"] = 9

# First and last month of a season in the north; winter ends next year (month 14 is February).
SEASONS = {
    "spring": (3, 5),
    "summer": (6, 8),
    "fall": (9, 11),
    "autumn": (9, 11),
    "winter": (12, 14),
}

_SATURDAY = 5
_SUNDAY = 6


@dataclass(frozen=True)
class DaySpan:
    """A span of days, both ends included, and how to say it ("20 May 2023", "June 2023")."""

    first: dt.date
    last: dt.date
    label: str


def say_day(day: dt.date) -> str:
    """Returns a day in words, such as "8 May 2023"."""
    return f"{day.day} {calendar.month_name[day.month]} {day.year}"


def one_day(day: dt.date) -> DaySpan:
    """Returns the span of a single day."""
    return DaySpan(day, day, say_day(day))


def days_from(day: dt.date, days: int) -> dt.date:
    """Returns the day `days` after `day` (before it when negative)."""
    return day + dt.timedelta(days=days)


def month_bounds(year: int, month: int) -> tuple[dt.date, dt.date]:
    """Returns the first and last day of a month; months outside 1..12 roll into other years."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return dt.date(year, month, 1), dt.date(year, month, calendar.monthrange(year, month)[1])


def month_span(year: int, month: int) -> DaySpan:
    """Returns a whole month; months outside 1..12 roll into other years."""
    first, last = month_bounds(year, month)
    return DaySpan(first, last, f"{calendar.month_name[first.month]} {first.year}")


def year_span(year: int) -> DaySpan:
    """Returns a whole year."""
    return DaySpan(dt.date(year, 1, 1), dt.date(year, 12, 31), str(year))


def nearest_year(said_on: dt.date, month: int) -> int:
    """Returns the year in which that month lies nearest to `said_on`."""
    years = (said_on.year - 1, said_on.year, said_on.year + 1)
    return min(years, key=lambda year: abs((dt.date(year, month, 15) - said_on).days))


def weekend_before(said_on: dt.date, count: int = 1) -> DaySpan:
    """Returns the `count`-th whole weekend before `said_on`; a running one is not past."""
    back = 8 if said_on.weekday() == _SUNDAY else (said_on.weekday() - _SATURDAY) % 7 or 7
    saturday = days_from(said_on, -back - 7 * (count - 1))
    name = "the weekend" if count == 1 else f"{count} weekends"
    return DaySpan(saturday, days_from(saturday, 1), f"{name} before {say_day(said_on)}")


def weekend_after(said_on: dt.date) -> DaySpan:
    """Returns the weekend that comes next, or the one that begins on `said_on`."""
    saturday = days_from(said_on, (_SATURDAY - said_on.weekday()) % 7)
    return DaySpan(saturday, days_from(saturday, 1), f"the weekend after {say_day(said_on)}")


def weekday_near(name: str, said_on: dt.date, *, past: bool) -> DaySpan:
    """Returns the last (or next) day with that name, never `said_on` itself.

    Args:
        name: a weekday or the start of one, at least three letters ("sat", "tues").
        said_on: the day the sentence was said.
        past: whether to look back.

    """
    full = next(day for day in WEEKDAYS if day.startswith(name.lower()[:3]))
    ahead = (WEEKDAYS[full] - said_on.weekday()) % 7
    day = days_from(said_on, (ahead - 7 if past else ahead or 7))
    side = "before" if past else "after"
    return DaySpan(day, day, f"{say_day(day)}, the {full.capitalize()} {side} {say_day(said_on)}")


def season_span(which: str, season: str, said_on: dt.date) -> DaySpan:
    """Returns "last", "this" or "next" spring, summer, autumn, fall or winter."""
    year = _season_year(which, season, said_on)
    first, last = _season_bounds(season, year)
    return DaySpan(first, last, f"{season} {year}")


def _season_bounds(season: str, year: int) -> tuple[dt.date, dt.date]:
    start, end = SEASONS[season]
    return month_bounds(year, start)[0], month_bounds(year, end)[1]


def _season_year(which: str, season: str, said_on: dt.date) -> int:
    """The year in which that season begins; in January this winter began last year."""
    years = range(said_on.year - 2, said_on.year + 2)
    bounds = {year: _season_bounds(season, year) for year in years}
    if which == "last":
        return max(year for year, (_, last) in bounds.items() if last < said_on)
    if which == "next":
        return min(year for year, (first, _) in bounds.items() if first > said_on)
    return min(year for year, (_, last) in bounds.items() if last >= said_on)
