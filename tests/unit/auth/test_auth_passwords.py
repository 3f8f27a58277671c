"""Passwords are hashed with argon2id, off the event loop, a bounded number at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from services.auth.passwords import Passwords, check_password
from services.runtime.errors import AppError, Reason


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(workers=1, queue_limit=1)
    yield made
    made.close()


async def test_a_password_fits_its_own_hash_only(passwords: Passwords) -> None:
    """argon2id with the parameters of the design; never the same hash twice."""
    first, second = await passwords.hash("one password"), await passwords.hash("one password")

    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert await passwords.verify(first, "one password")
    assert not await passwords.verify(first, "another password")


async def test_no_account_and_a_broken_hash_fit_nothing(passwords: Passwords) -> None:
    """Even the decoy's own text does not sign anybody in."""
    assert not await passwords.verify(None, "no account has this password")
    assert not await passwords.verify("not a hash", "x")


async def test_more_than_the_queue_holds_is_refused(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hashes, one waits, the third hears OVERLOADED with a hint; the loop stays free."""
    started, release = threading.Event(), threading.Event()

    class SlowHasher:
        def hash(self, _password: str) -> str:
            started.set()
            release.wait(10)
            return "hash"

    monkeypatch.setattr(passwords, "_hasher", SlowHasher())
    running = [asyncio.create_task(passwords.hash("x")) for _ in range(2)]
    await asyncio.to_thread(started.wait, 10)
    with pytest.raises(AppError) as caught:
        await passwords.hash("x")
    release.set()

    assert await asyncio.gather(*running) == ["hash", "hash"]
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s is not None


def test_a_new_password_has_at_least_eight_characters() -> None:
    """The error names the field."""
    check_password("12345678")
    with pytest.raises(AppError) as caught:
        check_password("1234567")
    assert [violation.field for violation in caught.value.violations] == ["password"]
