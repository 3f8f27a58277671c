"""When a part of a local mesh is started again, and when it is left down. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from services.cli.health import Answer

# A part that crashes more often than this in a minute is left down, and said to be.
MAX_RESTARTS = 5
_RESTART_WINDOW_S = 60.0
# So many questions in a row without an answer mean that a service is frozen. With the time
# between two and the patience for each, a frozen service is killed after about 10 s.
SILENT_ANSWERS = 3
CHECK_EVERY_S = 2.0
ANSWER_LIMIT_S = 2.5
# A process that lives but does not serve for so long will not: a first start takes less.
AWAY_LIMIT_S = 90.0


@dataclass
class Restarts:
    """Counts the restarts of one part within the last minute."""

    times: deque[float] = field(default_factory=deque)

    def allowed(self, now: float) -> bool:
        """Whether another restart is within bounds; counts it if so."""
        while self.times and now - self.times[0] > _RESTART_WINDOW_S:
            self.times.popleft()
        if len(self.times) >= MAX_RESTARTS:
            return False
        self.times.append(now)
        return True


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
