"""One budget holds the tier's promise over all steps, and the client's deadline over the call."""

from __future__ import annotations

import pytest

from services.routing.breaker import FAILURES_TO_OPEN, MAX_OPEN_S, OPEN_S, Breaker, BreakerState
from services.routing.budget import (
    FINAL_RESERVE_S,
    FIRST_TEXT_S,
    LAST_RESORT_S,
    MIN_STALL_S,
    Budget,
)
from services.routing.domain import Tier
from services.routing.targets import MAX_TARGETS, MIN_SAMPLES, TargetBook
from services.runtime.clock import FakeClock
from services.runtime.errors import Reason


@pytest.mark.parametrize("tier", list(FIRST_TEXT_S))
def test_memory_and_a_first_attempt_leave_the_last_resort_its_time(tier: Tier) -> None:
    clock = FakeClock()
    budget = Budget.start(clock, tier, 60.0)
    clock.advance(budget.memory_s(generative=True))
    clock.advance(budget.attempt_first_text_s(p95_s=None, more_targets=True))
    assert budget.elapsed_s() <= FIRST_TEXT_S[tier] - LAST_RESORT_S + 1e-9 or tier is Tier.INSTANT
    assert budget.elapsed_s() <= FIRST_TEXT_S[tier]


def test_generation_ends_in_time_for_the_final_frame() -> None:
    clock = FakeClock()
    budget = Budget.start(clock, Tier.FAST, 3.0)
    assert budget.remaining_s() == pytest.approx(3.0 - FINAL_RESERVE_S)
    clock.advance(2.95)
    assert budget.remaining_s() == 0.0
    assert budget.final_remaining_s() == pytest.approx(0.05)


@pytest.mark.parametrize(("total_s", "reserve_s"), [(1.0, 0.1), (20.0, 0.4), (600.0, 1.0)])
def test_a_long_call_keeps_back_more_for_its_final_frame(total_s: float, reserve_s: float) -> None:
    budget = Budget.start(FakeClock(), Tier.FAST, total_s)
    assert budget.final_remaining_s() - budget.remaining_s() == pytest.approx(reserve_s)


def test_a_deadline_shorter_than_the_tier_rules() -> None:
    budget = Budget.start(FakeClock(), Tier.STANDARD, 1.0)
    assert budget.first_text_remaining_s() == pytest.approx(0.9)
    assert budget.memory_s(generative=False) <= 0.9


def test_without_a_language_model_recall_may_take_nearly_all_of_the_tier() -> None:
    budget = Budget.start(FakeClock(), Tier.FAST, 60.0)
    assert budget.memory_s(generative=False) == pytest.approx(1.8)
    assert budget.memory_s(generative=True) == pytest.approx(1.2)


def test_the_last_target_may_use_what_is_left_of_the_call() -> None:
    budget = Budget.start(FakeClock(), Tier.INSTANT, 30.0)
    assert budget.attempt_first_text_s(p95_s=0.01, more_targets=False) == pytest.approx(29.4)


def test_a_target_that_is_far_slower_than_usual_is_given_up_early() -> None:
    budget = Budget.start(FakeClock(), Tier.STANDARD, 60.0)
    assert budget.attempt_first_text_s(p95_s=0.6, more_targets=True) == pytest.approx(1.8)
    assert budget.stall_s(2.0) == pytest.approx(6.0)


@pytest.mark.parametrize(("tier", "least_s"), [(Tier.INSTANT, 0.2), (Tier.STANDARD, 1.25)])
def test_a_usually_fast_target_has_a_share_of_the_tier_all_the_same(
    tier: Tier, least_s: float
) -> None:
    """20 ms as a rule, and 0.4 s in a moment when the whole machine is slow: worth waiting for."""
    budget = Budget.start(FakeClock(), tier, 60.0)
    limit_s = budget.attempt_first_text_s(p95_s=0.02, more_targets=True)
    assert limit_s == pytest.approx(least_s)


def test_a_fast_stream_that_pauses_for_a_moment_is_not_given_up() -> None:
    """Tokens every 5 ms, then a pause of two seconds as loaded engines have: worth waiting for."""
    budget = Budget.start(FakeClock(), Tier.FAST, 60.0)
    assert budget.stall_s(0.005) == MIN_STALL_S >= 3.0


def test_a_turn_that_waited_for_its_place_still_has_the_time_of_its_tier() -> None:
    """The wait is told to the client; the call's own deadline goes on."""
    clock = FakeClock()
    budget = Budget.start(clock, Tier.INSTANT, 60.0)
    clock.advance(0.4)
    running = budget.running()
    assert running.memory_s(generative=False) == pytest.approx(0.3)
    assert running.first_text_remaining_s() == pytest.approx(0.5)
    assert running.elapsed_s() == pytest.approx(0.4)
    assert running.remaining_s() == budget.remaining_s()


def test_a_breaker_opens_probes_once_and_closes() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.would_allow(0.0)
        breaker.failed(0.0)
    assert breaker.state(0.0) is BreakerState.OPEN
    assert not breaker.would_allow(OPEN_S - 0.01)
    breaker.start(OPEN_S)
    assert not breaker.would_allow(OPEN_S)
    breaker.succeeded()
    assert breaker.state(OPEN_S) is BreakerState.CLOSED


def test_failed_probes_wait_longer_each_time_up_to_a_cap() -> None:
    breaker, now, waits = Breaker(), 0.0, []
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(now)
    for _ in range(8):
        assert breaker.open_until is not None
        waits.append(breaker.open_until - now)
        now = breaker.open_until
        breaker.start(now)
        breaker.failed(now)
    assert waits[:3] == [OPEN_S, OPEN_S * 2, OPEN_S * 4]
    assert max(waits) == MAX_OPEN_S


def test_a_probe_that_never_reports_does_not_keep_the_breaker_shut() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(0.0)
    breaker.start(OPEN_S)
    assert not breaker.would_allow(OPEN_S + 1)
    assert breaker.would_allow(OPEN_S + 60)


def test_only_failures_that_tell_of_health_count_against_a_target() -> None:
    book = TargetBook()
    for _ in range(10):
        book.failed("m", Reason.MODEL_REFUSED, 0.0)
    assert book.of("m").breaker.would_allow(0.0)
    for _ in range(FAILURES_TO_OPEN):
        book.failed("m", Reason.MODEL_UNAVAILABLE, 0.0)
    assert not book.of("m").breaker.would_allow(0.0)


def test_a_p95_needs_samples_and_the_book_is_bounded() -> None:
    book = TargetBook()
    for index in range(MIN_SAMPLES):
        assert book.of("m").first_text_p95_s is None
        book.answered("m", float(index))
    assert book.of("m").first_text_p95_s == MIN_SAMPLES - 1
    for index in range(MAX_TARGETS):
        book.of(f"other-{index}")
    assert book.of("m").first_text_p95_s is None
