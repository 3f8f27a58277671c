"""Passwords: argon2id on threads of its own, so many at once, never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.runtime.errors import AppError, Reason, Violation
from services.runtime.limits import Gate

T = TypeVar("T")

MIN_LENGTH = 8
# OWASP's second choice for argon2id: 19 MiB, two passes, one lane; 54 ms on the reference machine.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1
# At 54 ms each: the last in the queue waits about a second.
_QUEUE = 32
# Hashed when there is no such account, so that the answer takes as long as with one.
_NOBODY = "no account has this password"


def check_password(password: str) -> None:
    """Raise AppError INVALID_REQUEST if a new password is too short."""
    if len(password) < MIN_LENGTH:
        violation = Violation("password", f"must have at least {MIN_LENGTH} characters")
        raise AppError(Reason.INVALID_REQUEST, "the password is too short", violations=[violation])


class Passwords:
    """Hashes and verifies; `workers` at once, a bounded number waits, the rest are refused."""

    def __init__(self, workers: int, queue_limit: int = _QUEUE) -> None:
        self._hasher = PasswordHasher(
            time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES
        )
        self._gate = Gate(workers, queue_limit, name="logins")
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """Return the argon2id hash of a password; raises AppError OVERLOADED."""
        async with self._gate:
            return await self._on_thread(self._hasher.hash, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Tell whether the password fits; None takes as long and never fits."""
        async with self._gate:
            if self._decoy is None:
                self._decoy = await self._on_thread(self._hasher.hash, _NOBODY)
            known = password_hash or self._decoy
            fits = await self._on_thread(self._fits, known, password)
            return fits and password_hash is not None

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fits(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _on_thread(self, function: Callable[..., T], *arguments: str) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)
