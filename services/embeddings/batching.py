"""Which texts go into one batch: pure bookkeeping, no clock and no threads.

Padding is the cost of a batch of mixed lengths, so a batch is made of neighbours in length around
the text that has waited longest, up to a budget of padded tokens.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")

SLACK_TOKENS = 8  # padding up to this is always accepted
LEAST_FILL = 0.7  # beyond it a text joins only if it fills this share of its padded row


class Priority(IntEnum):
    """Who waits: somebody for an answer, or an import for its index."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True)
class BatchLimits:
    """The bounds of a batch.

    Attributes:
        texts: at most so many texts.
        tokens: at most so many tokens with padding; a single longer text goes alone.
        interactive_streak: after so many interactive batches in a row a waiting bulk batch goes,
            so that imports move on under any load.

    """

    texts: int = 8
    tokens: int = 512
    interactive_streak: int = 8


class LengthQueue(Generic[T]):
    """Waiting items with a length each: first in, first served, with neighbours in length."""

    def __init__(self) -> None:
        self._by_length: list[tuple[int, int]] = []
        self._items: dict[int, tuple[T, int]] = {}  # in order of arrival
        self._numbers: dict[T, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, length: int) -> None:
        """Append an item (hashable, not yet waiting here)."""
        number = self._next
        self._next += 1
        self._items[number] = (item, length)
        self._numbers[item] = number
        insort(self._by_length, (length, number))

    def discard(self, item: T) -> int | None:
        """Take an item out wherever it stands; returns its length, or None if it does not wait."""
        number = self._numbers.pop(item, None)
        if number is None:
            return None
        _, length = self._items.pop(number)
        del self._by_length[bisect_left(self._by_length, (length, number))]
        return length

    def pop(self, limits: BatchLimits) -> list[T]:
        """Take the next batch, shortest first: the oldest item and its neighbours in length."""
        if not self._items:
            return []
        number, (_, length) = next(iter(self._items.items()))
        start = bisect_left(self._by_length, (length, number))
        low, high = self._window(start, limits)
        batch = [self._items[number][0] for _, number in self._by_length[low:high]]
        for item in batch:
            self.discard(item)
        return batch

    def _window(self, start: int, limits: BatchLimits) -> tuple[int, int]:
        """Grow a window of neighbours around `start`, the nearer in length first."""
        lengths = self._by_length
        anchor = lengths[start][0]
        low, high = start, start + 1
        while True:
            sides = []
            if low > 0 and self._fits(low - 1, high, limits):
                sides.append((anchor - lengths[low - 1][0], low - 1, high))
            if high < len(lengths) and self._fits(low, high + 1, limits):
                sides.append((lengths[high][0] - anchor, low, high + 1))
            if not sides:
                return low, high
            _, low, high = min(sides)

    def _fits(self, low: int, high: int, limits: BatchLimits) -> bool:
        shortest, longest = self._by_length[low][0], self._by_length[high - 1][0]
        count = high - low
        filled = longest - shortest <= SLACK_TOKENS or shortest >= LEAST_FILL * longest
        return filled and count <= limits.texts and count * longest <= limits.tokens


class Lanes(Generic[T]):
    """One queue per priority: interactive goes first, and bulk is never shut out."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._queues: dict[Priority, LengthQueue[T]] = {lane: LengthQueue() for lane in Priority}
        self._streak = 0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, item: T, length: int, priority: Priority) -> None:
        """Append an item to the lane of its priority."""
        self._queues[priority].add(item, length)

    def discard(self, item: T) -> None:
        """Take an item out of whichever lane it waits in, if any."""
        for queue in self._queues.values():
            queue.discard(item)

    def promote(self, item: T) -> None:
        """Move an item that waits as bulk to the end of the interactive lane."""
        length = self._queues[Priority.BULK].discard(item)
        if length is not None:
            self._queues[Priority.INTERACTIVE].add(item, length)

    def pop(self) -> list[T]:
        """Take the next batch, all of one lane; empty if nothing waits."""
        return self._queues[self._turn()].pop(self._limits)

    def _turn(self) -> Priority:
        interactive, bulk = self._queues[Priority.INTERACTIVE], self._queues[Priority.BULK]
        enough = self._streak >= self._limits.interactive_streak
        if interactive and not (bulk and enough):
            self._streak += 1
            return Priority.INTERACTIVE
        self._streak = 0
        return Priority.BULK
