"""The time a call has left, for everything that runs inside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from services.runtime.errors import AppError, Reason

# What a call gets that comes with no deadline, and what runs outside any call.
DEFAULT_S = 10.0
# The most that a call may ask for.
MAX_DEADLINE_S = 600.0

_ends: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining_s() -> float:
    """Seconds until the running call must have ended, never below zero."""
    ends = _ends.get()
    return DEFAULT_S if ends is None else max(0.0, ends - time.monotonic())


def require_time() -> float:
    """Like `remaining_s`, but raises AppError DEADLINE_EXCEEDED when nothing is left."""
    left = remaining_s()
    if left <= 0:
        raise AppError(Reason.DEADLINE_EXCEEDED, "the deadline has passed")
    return left


@contextmanager
def deadline_scope(seconds: float, *, extend: bool = False) -> Iterator[None]:
    """Give the work inside `seconds`, but never more than the call has left.

    `extend` lifts that cap: for shielded work that must outlive a cancelled call.
    """
    ends = time.monotonic() + seconds
    outer = _ends.get()
    reset = _ends.set(ends if extend or outer is None else min(ends, outer))
    try:
        yield
    finally:
        _ends.reset(reset)
