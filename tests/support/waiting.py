"""Waiting for what comes by itself, in tests with an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError

PATIENCE_S = 60.0
"""Far above what is promised: a loaded machine gets more. The bounds themselves are benchmarks'."""
_POLL_S = 0.05
_DEADLINES_S = (0.2, 1.0, 5.0, 25.0)

_T = TypeVar("_T")


async def overdue(call: Callable[[], Awaitable[object]], reached: asyncio.Event) -> AppError:
    """The error of a call whose deadline passes while the server, which sets `reached`, is at it.

    A deadline may pass on the way there when the machine is busy: the next try has a longer one.
    """
    for seconds in _DEADLINES_S:
        with deadline_scope(seconds), pytest.raises(AppError) as late:
            await call()
        if reached.is_set():
            return late.value
    raise AssertionError(f"no call reached the server within {_DEADLINES_S[-1]:.0f} s")


async def until(
    condition: Callable[[], Awaitable[_T]], what: str, patience_s: float = PATIENCE_S
) -> _T:
    """Ask until the answer is true, and return it; it is an error if it never is."""
    ends = time.monotonic() + patience_s
    while not (answer := await condition()):
        assert time.monotonic() < ends, f"not within {patience_s:.0f} s: {what}"
        await asyncio.sleep(_POLL_S)
    return answer
