"""Relative dates mean the right days, whatever the day they were said on."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.extractive.calendar_spans import MONTHS, SEASONS, WEEKDAYS
from services.models.extractive.dates import resolve

# A Thursday.
SAID_ON = dt.date(2026, 5, 14)
DAYS = st.dates(dt.date(1990, 1, 1), dt.date(2060, 12, 31))


def span(text: str, said_on: dt.date = SAID_ON) -> tuple[str, str] | None:
    found = resolve(text, said_on)
    return found and (found.first.isoformat(), found.last.isoformat())


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("We came home yesterday", "2026-05-13", "2026-05-13"),
        ("the day before yesterday it rained", "2026-05-12", "2026-05-12"),
        ("I did not sleep last night", "2026-05-13", "2026-05-13"),
        ("I moved in today", "2026-05-14", "2026-05-14"),
        ("I fly tomorrow", "2026-05-15", "2026-05-15"),
        ("the day after tomorrow is the exam", "2026-05-16", "2026-05-16"),
        ("three days ago I started", "2026-05-11", "2026-05-11"),
        ("a couple of days ago", "2026-05-12", "2026-05-12"),
        ("last Saturday we painted", "2026-05-09", "2026-05-09"),
        ("last Thursday we painted", "2026-05-07", "2026-05-07"),
        ("next Monday I begin", "2026-05-18", "2026-05-18"),
        ("on Tuesday we ate soup", "2026-05-12", "2026-05-12"),
        ("I'm going to sing on Tuesday", "2026-05-19", "2026-05-19"),
        ("My party is on Sunday", "2026-05-17", "2026-05-17"),
        ("last weekend", "2026-05-09", "2026-05-10"),
        ("two weekends ago", "2026-05-02", "2026-05-03"),
        ("this weekend we sail", "2026-05-16", "2026-05-17"),
        ("last week I was ill", "2026-05-07", "2026-05-13"),
        ("two weeks ago", "2026-04-27", "2026-05-03"),
        ("next week", "2026-05-15", "2026-05-21"),
        ("last month", "2026-04-01", "2026-04-30"),
        ("five months ago", "2025-12-01", "2025-12-31"),
        ("last year", "2025-01-01", "2025-12-31"),
        ("ten years ago", "2016-01-01", "2016-12-31"),
        ("on 3 March we signed", "2026-03-03", "2026-03-03"),
        ("on December 24th", "2025-12-24", "2025-12-24"),
        ("the 2nd of June 2019", "2019-06-02", "2019-06-02"),
        ("in August", "2026-08-01", "2026-08-31"),
        ("back in 2011", "2011-01-01", "2011-12-31"),
        ("last summer", "2025-06-01", "2025-08-31"),
        ("next winter", "2026-12-01", "2027-02-28"),
        ("last winter", "2025-12-01", "2026-02-28"),
    ],
)
def test_an_expression_means_these_days(text, first, last):
    assert span(text) == (first, last)


@pytest.mark.parametrize(
    "text", ["", "I may go", "many days ago", "31 June", "March on!", "the last cake", "in 1066 AD"]
)
def test_what_is_no_time_means_nothing(text):
    assert resolve(text, SAID_ON) is None


def test_the_first_expression_of_a_text_counts():
    assert span("Yesterday I booked a flight for next month") == ("2026-05-13", "2026-05-13")


def test_the_label_says_day_and_reference():
    found = resolve("last Saturday", SAID_ON)
    assert found is not None
    assert found.label == "9 May 2026, the Saturday before 14 May 2026"


def test_a_typographic_apostrophe_changes_nothing():
    assert span("I\N{RIGHT SINGLE QUOTATION MARK}ll come on Friday") == span("I'll come on Friday")


@given(DAYS, st.sampled_from(sorted(WEEKDAYS)))
def test_last_weekday_is_that_weekday_within_the_week_before(said_on, name):
    found = resolve(f"last {name}", said_on)
    assert found is not None
    assert found.first == found.last
    assert found.first.weekday() == WEEKDAYS[name]
    assert 1 <= (said_on - found.first).days <= 7


@given(DAYS, st.sampled_from(sorted(WEEKDAYS)))
def test_next_weekday_is_that_weekday_within_the_week_after(said_on, name):
    found = resolve(f"next {name}", said_on)
    assert found is not None
    assert found.first.weekday() == WEEKDAYS[name]
    assert 1 <= (found.first - said_on).days <= 7


@given(DAYS, st.integers(0, 400))
def test_days_ago_counts_back_exactly(said_on, days):
    found = resolve(f"{days} days ago", said_on)
    assert found is not None
    assert said_on - found.first == dt.timedelta(days=days)


@given(DAYS, st.integers(1, 30))
def test_weekends_ago_are_a_saturday_and_a_sunday_in_the_past(said_on, count):
    found = resolve(f"{count} weekends ago", said_on)
    assert found is not None
    assert (found.first.weekday(), found.last.weekday()) == (5, 6)
    assert found.last < said_on


@given(DAYS, st.sampled_from(sorted(SEASONS)), st.sampled_from(["last", "next"]))
def test_last_and_next_season_do_not_hold_the_day_itself(said_on, season, which):
    found = resolve(f"{which} {season}", said_on)
    assert found is not None
    assert found.last < said_on if which == "last" else found.first > said_on


@given(DAYS, st.sampled_from(sorted(MONTHS)))
def test_a_month_without_a_year_is_the_nearest_one(said_on, month):
    found = resolve(f"in {month}", said_on)
    assert found is not None
    assert found.first.month == MONTHS[month]
    assert abs((found.first.replace(day=15) - said_on).days) <= 184


@given(DAYS, st.text(max_size=200))
def test_any_text_at_all_is_survived(said_on, text):
    found = resolve(text, said_on)
    assert found is None or found.first <= found.last


@pytest.mark.parametrize("text", ["99999 years ago", "9999999999 days ago", "99999 months ago"])
def test_times_before_the_calendar_mean_nothing(text):
    assert resolve(text, SAID_ON) is None
