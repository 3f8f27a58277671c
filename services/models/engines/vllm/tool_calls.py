"""Tool calls in the form that Hermes, Qwen and many others write into their text. Pure.

Such as `<tool_call>{"name": "weather", "arguments": {"city": "Leeds"}}</tool_call>`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable

from services.models.domain import ToolCall

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

Part = str | ToolCall


def _new_id() -> str:
    return f"call_{secrets.token_hex(8)}"


class ToolCallReader:
    """Splits a reply, as it comes, into text and calls.

    Text that may be the beginning of a call is held back, and so is white space before it.

    Args:
        new_id: gives each call its id.

    """

    def __init__(self, new_id: Callable[[], str] = _new_id) -> None:
        self._new_id = new_id
        self._held = ""
        self._inside = False
        self.called = False
        """Whether there has been a call."""

    def take(self, text: str) -> list[Part]:
        """Return what is certain after more text."""
        self._held += text
        parts: list[Part] = []
        while self._split(parts):
            pass
        return parts

    def end(self) -> list[Part]:
        """Return what is left when the reply has ended: the last call may lack its end."""
        held, self._held = self._held, ""
        if self._inside:
            return [self._call(held) or _OPEN + held]
        return [held] if held and not (self.called and held.isspace()) else []

    def _split(self, parts: list[Part]) -> bool:
        """Move one text or call from what is held to `parts`; False when no more is certain."""
        mark = _CLOSE if self._inside else _OPEN
        before, found, after = self._held.partition(mark)
        if not found:
            if not self._inside:
                self._give_text(parts)
            return False
        if self._inside:
            parts.append(self._call(before) or f"{_OPEN}{before}{_CLOSE}")
        elif before.strip():
            parts.append(before.rstrip())
        self._inside, self._held = not self._inside, after
        return True

    def _give_text(self, parts: list[Part]) -> None:
        keep = len(self._held) - _unfinished(self._held)
        text = self._held[:keep].rstrip()
        if text:
            parts.append(text)
            self._held = self._held[len(text) :]

    def _call(self, text: str) -> ToolCall | None:
        """Return the call, or None if what stands there is none: it is shown as it is then."""
        try:
            call = json.loads(text)
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return None
        if not isinstance(name, str) or not name:
            return None
        self.called = True
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return ToolCall(self._new_id(), name, written)


def _unfinished(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of a call."""
    longest = min(len(text), len(_OPEN) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(_OPEN[:n])), 0)
