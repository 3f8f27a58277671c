"""The adaptive limit: within its bounds whatever happens, and close to what is bearable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.aimd import DECREASE, AdaptiveLimit

MOST = 64
outcomes = st.lists(st.sampled_from(["well", "badly", "late news", "back"]), max_size=200)


def play(limit: AdaptiveLimit, outcomes: list[str], clock: float = 0.0) -> float:
    """Tell a limit what happened, one second apart; returns when it ended."""
    for outcome in outcomes:
        clock += 1.0
        match outcome:
            case "well":
                limit.rise()
            case "badly":
                limit.fall(clock - 0.5, clock)
            case "late news":
                limit.fall(clock - 1.5, clock)
            case "back":
                limit.start_slowly(clock)
    return clock


def rounds(limit: AdaptiveLimit, bearable: int, count: int, clock: float = 0.0) -> None:
    """So many rounds of as much work as may be, all bad if it is more than is bearable."""
    for number in range(count):
        began = clock + number
        for _ in range(limit.value):
            if limit.value <= bearable:
                limit.rise()
            else:
                limit.fall(began, began + 0.5)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8), outcomes)
def test_it_never_leaves_its_bounds(
    least: int, more: int, most_more: int, happened: list[str]
) -> None:
    limit = AdaptiveLimit(least=least, first=least + more, most=least + more + most_more)
    for outcome in happened:
        play(limit, [outcome])
        assert least <= limit.value <= least + more + most_more


@given(st.integers(1, MOST), st.integers(1, MOST), outcomes)
def test_it_settles_just_around_what_is_bearable_whatever_was_before(
    first: int, bearable: int, happened: list[str]
) -> None:
    limit = AdaptiveLimit(least=1, first=first, most=MOST)
    ended = play(limit, happened)
    rounds(limit, bearable, 4 * MOST, ended + 1)
    for number in range(2 * MOST):
        rounds(limit, bearable, 1, ended + 5 * MOST + number)
        assert int(DECREASE * bearable) <= limit.value <= bearable + 1


def test_one_bad_burst_cuts_it_once() -> None:
    limit = AdaptiveLimit(least=1, first=10, most=10)
    assert [limit.fall(0.0, now) for now in (1.0, 1.1, 1.2)] == [True, False, False]
    assert limit.value == 8


def test_after_an_absence_it_doubles_each_round_and_then_creeps() -> None:
    limit = AdaptiveLimit(least=1, first=40, most=40)
    limit.start_slowly(0.0)
    seen = []
    for _ in range(8):
        seen.append(limit.value)
        for _ in range(limit.value):
            limit.rise()
    assert seen == [1, 2, 4, 8, 16, 32, 32, 33]


def test_bounds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="least"):
        AdaptiveLimit(least=2, first=1, most=3)
