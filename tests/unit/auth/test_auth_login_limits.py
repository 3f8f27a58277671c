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
