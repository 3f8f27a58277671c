"""A limit on concurrency that follows how well the work goes. Pure.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain 1989) and Netflix's
concurrency-limits; after an absence TCP's slow start (RFC 5681, 3.1).
"""

from __future__ import annotations

# What is left of the limit when the work goes badly; one bad burst cuts it once.
DECREASE = 0.8


class AdaptiveLimit:
    """A number between `least` and `most` that begins as `first`.

    It rises by one for as many good outcomes as it is large, and falls to `DECREASE` of itself
    after a bad one.
    """

    def __init__(self, *, least: int, first: int, most: int) -> None:
        if not 1 <= least <= first <= most:
            raise ValueError("1 <= least <= first <= most must hold")
        self._least, self._most = least, most
        self._exact = float(first)
        self._slow_below = 0.0
        self._changed_at = float("-inf")

    @property
    def value(self) -> int:
        """How many may run at once now."""
        return int(self._exact)

    def rise(self) -> None:
        """Take account of a good outcome; to be told only while the limit is reached."""
        step = 1.0 if self._exact < self._slow_below else 1 / self._exact
        self._exact = min(self._most, self._exact + step)

    def fall(self, began: float, now: float) -> bool:
        """Take account of a bad outcome of work that `began` then (monotonic seconds).

        Returns whether the limit was cut: what began before the last cut went badly because of
        the limit that was.
        """
        if began < self._changed_at:
            return False
        self._changed_at = now
        self._exact = self._slow_below = self._reduced()
        return True

    def start_slowly(self, now: float) -> None:
        """Begin again with the least: one more for every good outcome, until close to before."""
        self._changed_at = now
        self._slow_below = self._reduced()
        self._exact = self._least

    def _reduced(self) -> float:
        return max(self._least, self._exact * DECREASE)
