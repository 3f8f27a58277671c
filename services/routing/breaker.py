"""A circuit breaker: a pure state machine per target, with the time passed in.

Closed until `FAILURES_TO_OPEN` failures in a row; then open for a time that doubles with each
failed probe; then half open: one probe at a time decides. A probe that never reports back is
forgotten after `PROBE_TIMEOUT_S`, so that a cancelled call cannot keep the breaker open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FAILURES_TO_OPEN = 3
OPEN_S = 2.0
MAX_OPEN_S = 60.0
PROBE_TIMEOUT_S = 30.0


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass
class Breaker:
    """One target's breaker; `now` is monotonic seconds in every method."""

    failures: int = 0
    open_until: float | None = None
    open_s: float = OPEN_S
    probing_until: float = 0.0

    def state(self, now: float) -> BreakerState:
        """Return the state at `now`."""
        if self.open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.open_until else BreakerState.HALF_OPEN

    def would_allow(self, now: float) -> bool:
        """Return whether a call may be made at `now`, without claiming the probe."""
        state = self.state(now)
        if state is BreakerState.HALF_OPEN:
            return now >= self.probing_until
        return state is BreakerState.CLOSED

    def start(self, now: float) -> None:
        """Note that a call begins; in the half-open state it is the probe."""
        if self.state(now) is BreakerState.HALF_OPEN:
            self.probing_until = now + PROBE_TIMEOUT_S

    def succeeded(self) -> None:
        """Note an answer: closed again."""
        self.failures = 0
        self.open_until = None
        self.open_s = OPEN_S
        self.probing_until = 0.0

    def failed(self, now: float) -> None:
        """Note a failure that says the target is away, late or full."""
        self.failures += 1
        self.probing_until = 0.0
        if self.open_until is not None:
            self.open_s = min(MAX_OPEN_S, self.open_s * 2)
            self.open_until = now + self.open_s
        elif self.failures >= FAILURES_TO_OPEN:
            self.open_until = now + self.open_s
