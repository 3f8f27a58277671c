"""The benchmarks' arithmetic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.figures import (
    DAY_S,
    after_warm_up,
    growth_percent_a_day,
    percentile,
    poisson_arrivals,
    slope,
)

numbers = st.floats(-1e6, 1e6)


def _chosen(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same arrivals in every run


def test_a_percentile_lies_between_its_neighbours() -> None:
    """The median of an even number of values is halfway; the ends are the extremes."""
    values = [40.0, 10.0, 30.0, 20.0]
    assert [percentile(values, p) for p in (0, 50, 100)] == [10.0, 25.0, 40.0]
    assert percentile(list(range(101)), 99) == 99


def test_a_percentile_of_nothing_is_refused() -> None:
    """No figure is made up where nothing was measured."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(numbers, min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_ascend_and_stay_within_the_values(
    values: list[float], one: float, other: float
) -> None:
    """A higher percentile is never a lower value."""
    low, high = percentile(values, min(one, other)), percentile(values, max(one, other))
    # Between two equal neighbours the line may be off by a rounding.
    assert min(values) - 1e-6 <= low <= high + 1e-6 <= max(values) + 2e-6


def test_arrivals_are_as_many_as_their_rate_says_and_not_evenly_spaced() -> None:
    """Mean and variance of a Poisson process: the count's variance is its mean."""
    counts = [len(list(poisson_arrivals(5.0, 20.0, _chosen(seed)))) for seed in range(400)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert 98 < mean < 102
    assert 75 < variance < 125


def test_arrivals_ascend_within_their_time() -> None:
    """Moments come in order, and none after the end; without a rate there are none."""
    moments = list(poisson_arrivals(50.0, 2.0, _chosen(7)))
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments[-1] < 2.0
    assert list(poisson_arrivals(0.0, 10.0, _chosen(7))) == []


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_the_slope_of_a_line_is_found(rise: float, start: float) -> None:
    """Exactly on a line, its own slope."""
    xs = [0.0, 1.0, 2.0, 5.0]
    assert slope(xs, [start + rise * x for x in xs]) == pytest.approx(rise, abs=1e-6)


def test_one_outlier_does_not_bend_the_slope() -> None:
    """A single spike of memory is no growth."""
    xs = [float(x) for x in range(20)]
    ys = [100.0 + 0.5 * x for x in xs]
    ys[10] = 900.0
    assert slope(xs, ys) == pytest.approx(0.5, abs=0.05)


def test_a_slope_needs_two_places() -> None:
    """Points at one moment say nothing about growth."""
    with pytest.raises(ValueError, match="two different places"):
        slope([1.0, 1.0], [2.0, 3.0])


def test_growth_is_told_for_a_day_in_percent() -> None:
    """1 MB more in a day on 100 MB is 1 %."""
    seconds = [0.0, 100.0, 200.0]
    sizes = [100.0 - (200.0 - second) / DAY_S for second in seconds]
    assert growth_percent_a_day(seconds, sizes) == pytest.approx(1.0)


def test_what_came_before_warm_up_is_left_out() -> None:
    """The share is of time, not of points."""
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (50.0, 4.0), (100.0, 5.0)]
    assert after_warm_up(points, 0.5) == [(50.0, 4.0), (100.0, 5.0)]
    assert after_warm_up([]) == []
