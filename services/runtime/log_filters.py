"""What happens to a log line before it is written: secrets out, repeated lines held back."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any

from structlog import DropEvent

MASK = "***"
_SECRET_KEY = re.compile(
    r"(?i)(^|_)(password|passwd|secret|token|authorization|api_?key|private_?key|dsn|cookie)s?$"
)
_SECRET_TEXT = re.compile(
    r"em_[A-Za-z0-9]+_[A-Za-z0-9_\-]{8,}"  # our API keys
    r"|er_[A-Za-z0-9_\-]{16,}"  # our refresh tokens
    r"|eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"  # JSON web tokens
    r"|(?i:bearer\s+)\S+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password in an address
)
# The same line so often in the window is a loop that tells nothing new.
_BURST = 20
_WINDOW_S = 10.0
# Each of these is evidence, however many there are: an entry's hash, see docs/audit.md.
ALWAYS_WRITTEN = frozenset({"audit_appended"})
# Different lines that are remembered; an attacker may vary them.
_MAX_KEYS = 1024
# Deep enough for a dict in a list in a dict; deeper values are masked whole.
_MAX_DEPTH = 4

EventDict = MutableMapping[str, Any]


def redact_text(text: str) -> str:
    """Return `text` with keys, tokens and passwords in addresses masked."""
    return _SECRET_TEXT.sub(MASK, text)


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Structlog processor: mask values under telling names and secrets inside any text."""
    for key, value in event.items():
        event[key] = _redact_value(value, 0, key)
    return event


def _redact_value(value: Any, depth: int, key: object = "") -> Any:
    # Numbers stay: `prompt_tokens=12` is no secret.
    if isinstance(value, str | bytes) and _SECRET_KEY.search(str(key)):
        return MASK
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict | list | tuple) and depth >= _MAX_DEPTH:
        return MASK
    if isinstance(value, dict):
        return {name: _redact_value(item, depth + 1, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(item, depth + 1) for item in value]
    return value


class RepeatLimiter:
    """Lets the same line through `burst` times in `window_s` seconds, then counts in silence.

    The first line of the next window carries `suppressed`, the number that was held back.
    `monotonic` gives seconds.
    """

    def __init__(
        self, monotonic: Callable[[], float], burst: int = _BURST, window_s: float = _WINDOW_S
    ) -> None:
        self._monotonic = monotonic
        self._burst = burst
        self._window_s = window_s
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def admit(self, key: tuple[str, str]) -> int | None:
        """Return how many like it were held back before (0: none), or None: hold this one back."""
        now = self._monotonic()
        started, count = self._seen.get(key, (now, 0))
        held_back = 0
        if now - started >= self._window_s:
            started, held_back, count = now, max(0, count - self._burst), 0
        self._seen[key] = (started, count + 1)
        self._seen.move_to_end(key)
        if len(self._seen) > _MAX_KEYS:
            self._seen.popitem(last=False)
        return held_back if count < self._burst else None

    def __call__(self, _logger: object, method: str, event: EventDict) -> EventDict:
        """Structlog processor."""
        if event.get("event") in ALWAYS_WRITTEN:
            return event
        held_back = self.admit((method, str(event.get("event"))))
        if held_back is None:
            raise DropEvent
        if held_back:
            event["suppressed"] = held_back
        return event
