"""Login limits slow guessing down and lock nobody else out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.login_limits import (
    FREE_FAILURES,
    LONGEST_WAIT,
    MEMORY,
    Failures,
    attempt_key,
    count_failure,
    network_of,
    uncount_failure,
    wait_s,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _after(count: int) -> Failures:
    failures: Failures | None = None
    for _ in range(count):
        failures = count_failure(failures, NOW)
    assert failures is not None
    return failures


def test_a_few_mistakes_cost_nothing() -> None:
    """Nobody waits before the free failures are used up."""
    assert wait_s(None, NOW) == 0
    assert wait_s(_after(FREE_FAILURES - 1), NOW) == 0


def test_then_the_wait_doubles_up_to_a_quarter_of_an_hour() -> None:
    """2 s, 4 s, 8 s and so on, never more than the longest wait."""
    waits = [wait_s(_after(FREE_FAILURES + n), NOW) for n in range(12)]

    assert waits[:4] == [2, 4, 8, 16]
    assert max(waits) == LONGEST_WAIT.total_seconds()
    assert waits == sorted(waits)


def test_after_a_quiet_hour_all_is_forgotten() -> None:
    """The count begins anew."""
    failures = _after(FREE_FAILURES + 20)

    assert wait_s(failures, NOW + MEMORY) == 0
    assert count_failure(failures, NOW + MEMORY).count == 1


@given(st.integers(0, 30))
def test_an_attempt_that_was_not_made_leaves_nobody_waiting(count: int) -> None:
    """It was allowed, so it may be made again at once, and the next failure counts as it would."""
    before = _after(count) if count else None
    moment = NOW + timedelta(hours=0.5)

    left = uncount_failure(count_failure(before, moment), moment)

    assert wait_s(left, moment) == 0
    assert count_failure(left, moment).count == count + 1


def test_what_failed_since_still_counts_when_an_attempt_is_taken_back() -> None:
    """Of two attempts the first was not made: one failure fewer, and its wait no longer."""
    first = count_failure(_after(FREE_FAILURES), NOW + timedelta(seconds=2))
    second = count_failure(first, NOW + timedelta(seconds=10))

    left = uncount_failure(second, NOW + timedelta(seconds=2))

    assert left is not None
    assert (left.count, left.last_at) == (FREE_FAILURES + 1, second.last_at)
    assert wait_s(left, second.last_at) < wait_s(second, second.last_at)


@given(st.lists(st.integers(0, 4000), max_size=200))
def test_a_day_of_guessing_gets_few_tries(pauses_s: list[int]) -> None:
    """Whatever the timing, tries within any hour stay below a small bound."""
    failures: Failures | None = None
    now, tries = NOW, []
    for pause_s in pauses_s:
        now += timedelta(seconds=pause_s)
        if wait_s(failures, now) == 0:
            failures = count_failure(failures, now)
            tries.append(now)

    for start in tries:
        assert sum(start <= t < start + timedelta(hours=1) for t in tries) <= 2 * FREE_FAILURES + 12


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:203.0.113.9:4242", "203.0.113.9/32"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4242", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:4242", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:203.0.113.9]:1", "203.0.113.9/32"),
        ("unix:/tmp/x", "local"),
        ("ipv4:nonsense:1", "local"),
        ("", "local"),
    ],
)
def test_a_peer_belongs_to_a_network(peer: str, network: str) -> None:
    """One IPv4 address, or the /64 that an IPv6 customer has."""
    assert network_of(peer) == network


@given(*[st.text(max_size=6)] * 6)
def test_two_accounts_never_share_a_key(a: str, b: str, c: str, d: str, e: str, f: str) -> None:
    """The parts of a key cannot run into each other."""
    assert (attempt_key(a, b, c) == attempt_key(d, e, f)) == ((a, b, c) == (d, e, f))
