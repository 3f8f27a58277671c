"""When an upstream's first text is late: far beyond the best for prompts of like size. Pure.

What a server promises is not known, only what it can do. Prompts are told apart by powers of two
of their size, for a long one takes long to read on an idle server too.
"""

from __future__ import annotations

from collections import defaultdict, deque

# Late is more than so many times the best of late, and a little: a first text after 50 ms is no
# cause for worry when the best came after 10.
FAR_BEYOND = 4.0
SLACK_S = 1.0
# The best of so many: a server that has become slower for good is taken as it is.
SAMPLES = 64


def _samples() -> deque[float]:
    return deque(maxlen=SAMPLES)


class FirstTextTimes:
    """The newest times to first text, in seconds, by size of prompt."""

    def __init__(self) -> None:
        self._times: defaultdict[int, deque[float]] = defaultdict(_samples)

    def late(self, prompt_chars: int, took_s: float) -> bool:
        """Return whether a first text that took so long, or is not there yet, is late."""
        known = self._times.get(prompt_chars.bit_length())
        return known is not None and took_s > FAR_BEYOND * min(known) + SLACK_S

    def add(self, prompt_chars: int, took_s: float) -> None:
        """Remember how long a first text took."""
        self._times[prompt_chars.bit_length()].append(took_s)
