"""The benchmark's arithmetic: recall at k, AUROC, percentiles. Pure, and the benchmark's own."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence


def recall_at(evidence: Collection[str], ranked: Sequence[str], k: int) -> float:
    """Return the share (0..1) of `evidence` among the first `k` of `ranked`."""
    return len(set(evidence).intersection(ranked[:k])) / len(set(evidence))


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Return how often a positive outranks a negative, ties counting half; NaN if one is empty."""
    below = sorted(negatives)
    wins = [(bisect_left(below, value) + bisect_right(below, value)) / 2 for value in positives]
    return sum(wins) / (len(positives) * len(below)) if positives and below else math.nan


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0..1) of all do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
