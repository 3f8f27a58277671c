"""One deadline budget for one message: what each step may take so that the tier's promise holds.

All times are seconds on the injected monotonic clock. The call's own are counted from its start;
the tier's from when the turn runs, because one that waits for a place is told so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.routing.domain import Tier
from services.runtime.clock import Clock

# The tiers' promises: first text of the kept answer.
FIRST_TEXT_S = {Tier.INSTANT: 0.5, Tier.FAST: 2.0, Tier.STANDARD: 5.0}
# Share of the first-text time that recall and storing may take when a language model follows.
MEMORY_SHARE = {Tier.INSTANT: 0.5, Tier.FAST: 0.6, Tier.STANDARD: 0.5}
# What the extractive responder needs for its first text, kept back for it.
LAST_RESORT_S = 0.2
# Kept back at the end of the call for the commit and the final frame: a share of the call within
# these bounds. A machine whose cores all write a long reply needs more than a tenth of a second.
FINAL_RESERVE_S = 0.1
FINAL_SHARE = 0.02
MAX_FINAL_RESERVE_S = 1.0
# A target's limit is this many times its own p95, within the bounds below.
P95_FACTOR = 3.0
# No target is given up before, however fast it usually is: on a busy machine everything is slower
# at once, and the next target may only quote.
MIN_FIRST_TEXT_SHARE = 0.25
MIN_FIRST_TEXT_S = 0.2
# A loaded engine that else streams fast pauses for a second or two (a batch of long prompts, a
# preemption): starting over elsewhere would cost the user more than waiting for it.
MIN_STALL_S = 3.0
DEFAULT_STALL_S = 10.0
MAX_STALL_S = 30.0
# A call without a deadline gets this one.
DEFAULT_TOTAL_S = 60.0


@dataclass(frozen=True)
class Budget:
    """When the parts of one turn must be done.

    `deadline_at` is the client's own deadline; `runs_from` is when the tier's time began.
    """

    clock: Clock
    started_at: float
    deadline_at: float
    tier: Tier
    runs_from: float

    @classmethod
    def start(cls, clock: Clock, tier: Tier, remaining_s: float | None) -> Budget:
        """Begin a budget now for a call that has `remaining_s` left (None: the default)."""
        now = clock.monotonic()
        total = DEFAULT_TOTAL_S if remaining_s is None else remaining_s
        return cls(clock, now, now + max(0.0, total), tier, now)

    def with_tier(self, tier: Tier) -> Budget:
        """Return the same budget under another tier."""
        return replace(self, tier=tier)

    def running(self) -> Budget:
        """Return the same budget for a turn that runs from now on: the tier's time begins."""
        return replace(self, runs_from=self.clock.monotonic())

    @property
    def stop_at(self) -> float:
        """When generation must end so that `final` still arrives."""
        share = FINAL_SHARE * (self.deadline_at - self.started_at)
        reserve = min(MAX_FINAL_RESERVE_S, max(FINAL_RESERVE_S, share))
        return max(self.started_at, self.deadline_at - reserve)

    def elapsed_s(self) -> float:
        """Return the time since the call started."""
        return self.clock.monotonic() - self.started_at

    def remaining_s(self) -> float:
        """Return what is left for everything but `final`; never negative."""
        return max(0.0, self.stop_at - self.clock.monotonic())

    def final_remaining_s(self) -> float:
        """Return what is left until the client's own deadline; never negative."""
        return max(0.0, self.deadline_at - self.clock.monotonic())

    def first_text_remaining_s(self) -> float:
        """Return what is left until the tier's promise (or the call) ends; never negative."""
        promise = self.runs_from + FIRST_TEXT_S[self.tier]
        return max(0.0, min(promise, self.stop_at) - self.clock.monotonic())

    def memory_s(self, *, generative: bool) -> float:
        """Return what storing and recall may still take.

        With a language model to follow it is a share of the tier; without one nearly all of it,
        because an extractive answer without memories is worth nothing.
        """
        limit = FIRST_TEXT_S[self.tier]
        share = limit * MEMORY_SHARE[self.tier] if generative else limit - LAST_RESORT_S
        left = min(self.runs_from + share, self.stop_at) - self.clock.monotonic()
        return max(0.0, left)

    def attempt_first_text_s(self, *, p95_s: float | None, more_targets: bool) -> float:
        """Return how long one target may take to its first text.

        While others wait behind it, it gets the rest of the tier's time less what the last resort
        needs, or less if its own p95 says that it is stuck. The last target may use all that is
        left of the call: a late answer is better than none.
        """
        if not more_targets:
            return self.remaining_s()
        left = max(MIN_FIRST_TEXT_S, self.first_text_remaining_s() - LAST_RESORT_S)
        if p95_s is not None:
            share = FIRST_TEXT_S[self.tier] * MIN_FIRST_TEXT_SHARE
            left = min(left, max(MIN_FIRST_TEXT_S, share, P95_FACTOR * p95_s))
        return min(left, self.remaining_s())

    def stall_s(self, gap_p95_s: float | None) -> float:
        """Return how long a target may be silent between two pieces of text."""
        if gap_p95_s is None:
            return DEFAULT_STALL_S
        return min(MAX_STALL_S, max(MIN_STALL_S, P95_FACTOR * gap_p95_s))
