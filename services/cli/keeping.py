"""When a part of a local mesh is started again, and when it counts as frozen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.cli.health import Answer

# The first pause before a restart, and the longest: whatever is wrong may pass, a full disk say.
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
# A part that lived this long has recovered: its next restart is a first one.
HEALTHY_AFTER_S = 60.0
# So many questions in a row without an answer mean that a service is frozen. With the time
# between two and the patience for each, a frozen service is killed after about 10 s.
SILENT_ANSWERS = 3
CHECK_EVERY_S = 2.0
ANSWER_LIMIT_S = 2.5
# A process that lives but does not serve for so long will not: a first start takes less.
AWAY_LIMIT_S = 90.0


@dataclass
class Restarts:
    """Spaces out the restarts of one part: doubled pauses up to a bound, until it lives again."""

    pause_s: float = 0.0
    last: float = -HEALTHY_AFTER_S

    def next_pause_s(self, now: float) -> float:
        """Return how long to wait before the restart that is due now, in seconds."""
        lived = now - self.last - self.pause_s >= HEALTHY_AFTER_S
        self.pause_s = FIRST_PAUSE_S if lived else min(MAX_PAUSE_S, 2 * self.pause_s)
        self.last = now
        return self.pause_s


@dataclass
class Pulse:
    """Tells from the answers of one process when there is no more to hope for."""

    silent: int = 0
    away_since: float | None = None

    @property
    def next_check_s(self) -> float:
        """Seconds until the next question; at once after one that stayed without an answer."""
        return 0.1 if self.silent else CHECK_EVERY_S

    def take(self, answer: Answer, now: float) -> str:
        """Add an answer; why the process must be killed, or "" if it need not."""
        self.silent = self.silent + 1 if answer is Answer.SILENT else 0
        if answer is not Answer.AWAY:
            self.away_since = None
        elif self.away_since is None:
            self.away_since = now
        if self.silent >= SILENT_ANSWERS:
            return "gave no answer"
        if self.away_since is not None and now - self.away_since > AWAY_LIMIT_S:
            return f"did not serve for {AWAY_LIMIT_S:.0f} s"
        return ""
