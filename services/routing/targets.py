"""What routing has learned of each target: its breaker and its latencies. Local and bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from services.routing.breaker import Breaker, BreakerState
from services.runtime.errors import Reason

# Recent samples kept per target; enough for a p95, few enough to follow a change.
SAMPLES = 64
MIN_SAMPLES = 5
# Targets remembered at once; the least recently used goes first.
MAX_TARGETS = 256

# Failures that say "away, late or full"; others say nothing about the target's health.
COUNTED = frozenset(
    {
        Reason.MODEL_UNAVAILABLE,
        Reason.MODEL_BAD_RESPONSE,
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.DEADLINE_EXCEEDED,
        Reason.OVERLOADED,
        Reason.DRAINING,
    }
)


def _samples() -> deque[float]:
    return deque(maxlen=SAMPLES)


@dataclass
class TargetStats:
    """One target's breaker, and recent times in seconds to first text and between texts."""

    breaker: Breaker = field(default_factory=Breaker)
    first_text: deque[float] = field(default_factory=_samples)
    gaps: deque[float] = field(default_factory=_samples)

    @property
    def first_text_p95_s(self) -> float | None:
        """Return the 95th percentile to first text, or None while too little is known."""
        return p95(self.first_text)

    @property
    def gap_p95_s(self) -> float | None:
        """Return the 95th percentile between texts, or None while too little is known."""
        return p95(self.gaps)


def p95(samples: deque[float]) -> float | None:
    """Return the 95th percentile (nearest rank) of `samples`, None below `MIN_SAMPLES`."""
    if len(samples) < MIN_SAMPLES:
        return None
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


class TargetBook:
    """The stats of all targets by model id."""

    def __init__(self) -> None:
        self._stats: OrderedDict[str, TargetStats] = OrderedDict()

    def of(self, model: str) -> TargetStats:
        """Return the stats of `model`, made on first use."""
        stats = self._stats.setdefault(model, TargetStats())
        self._stats.move_to_end(model)
        while len(self._stats) > MAX_TARGETS:
            self._stats.popitem(last=False)
        return stats

    def states(self, now: float) -> dict[str, BreakerState]:
        """Return where each target's breaker stands at `now`."""
        return {model: stats.breaker.state(now) for model, stats in list(self._stats.items())}

    def answered(self, model: str, first_text_s: float) -> None:
        """Note a first text after `first_text_s` seconds."""
        stats = self.of(model)
        stats.first_text.append(first_text_s)
        stats.breaker.succeeded()

    def failed(self, model: str, reason: Reason, now: float) -> None:
        """Note a failure; only those that tell of the target's health count."""
        if reason in COUNTED:
            self.of(model).breaker.failed(now)
