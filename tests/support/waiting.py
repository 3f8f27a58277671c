"""Waiting for what comes by itself, in tests with an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_S = 60.0
"""Far above what is promised: a loaded machine gets more. The bounds themselves are benchmarks'."""
_POLL_S = 0.05

_T = TypeVar("_T")


async def until(condition: Callable[[], Awaitable[_T]], what: str) -> _T:
    """Ask until the answer is true, and return it; it is an error if it never is."""
    ends = time.monotonic() + PATIENCE_S
    while not (answer := await condition()):
        assert time.monotonic() < ends, f"not within {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(_POLL_S)
    return answer
