"""Arithmetic of the benchmarks: percentiles, arrivals, growth. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence

DAY_S = 86_400.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` (0..100) of `values` do not exceed, between neighbours by line.

    Raises ValueError if there are none.
    """
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def poisson_arrivals(rate: float, seconds: float, chosen: random.Random) -> Iterator[float]:
    """Moments in 0..`seconds` of independent arrivals, `rate` a second on average, ascending."""
    if rate <= 0:
        return
    at = chosen.expovariate(rate)
    while at < seconds:
        yield at
        at += chosen.expovariate(rate)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The median of the slopes between all pairs of points (Theil and Sen): outliers count little.

    Raises ValueError if there are not two different xs.
    """
    points = list(zip(xs, ys, strict=True))
    slopes = [
        (y2 - y1) / (x2 - x1)
        for i, (x1, y1) in enumerate(points)
        for x2, y2 in points[i + 1 :]
        if x1 != x2
    ]
    if not slopes:
        raise ValueError("a slope needs two different places")
    return statistics.median(slopes)


def growth_percent_a_day(seconds: Sequence[float], sizes: Sequence[float]) -> float:
    """Extrapolate the growth of `sizes`, seen at `seconds`, to a day, in percent of the last."""
    return 100 * slope(seconds, sizes) * DAY_S / sizes[-1]


def after_warm_up(
    points: Sequence[tuple[float, float]], share: float = 0.5
) -> list[tuple[float, float]]:
    """The (second, size) points of the last `share` of the time that they span."""
    if not points:
        return []
    first, last = points[0][0], points[-1][0]
    start = last - (last - first) * share
    return [point for point in points if point[0] >= start]
