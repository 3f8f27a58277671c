"""Refusals in the audit log: so many a minute, and none that is not at least counted."""

from __future__ import annotations

from dataclasses import replace

from services.auth.refusal_limit import PER_MINUTE, RefusalLimit
from services.runtime.audit import AuditEvent
from services.runtime.clock import FakeClock

EVENT = AuditEvent("unknown", "session.login", outcome="refused", details={"network": "local"})


def _flood(limit: RefusalLimit, tenant_id: str, count: int) -> int:
    """How many of so many refusals are written."""
    return sum(limit.bounded(tenant_id, EVENT) is not None for _ in range(count))


def test_a_few_are_written_as_they_are() -> None:
    limit = RefusalLimit(FakeClock())
    assert [limit.bounded("t", EVENT) for _ in range(PER_MINUTE)] == [EVENT] * PER_MINUTE


def test_of_a_flood_the_first_are_written_and_the_rest_is_counted_in_the_next() -> None:
    clock = FakeClock()
    limit = RefusalLimit(clock)
    assert _flood(limit, "t", PER_MINUTE + 7) == PER_MINUTE
    clock.advance(60)
    assert limit.bounded("t", EVENT) == replace(EVENT, details={"network": "local", "left_out": 7})
    assert limit.bounded("t", EVENT) == EVENT


def test_a_flood_in_one_tenant_leaves_nothing_out_of_another() -> None:
    limit = RefusalLimit(FakeClock())
    _flood(limit, "t", PER_MINUTE * 2)
    assert limit.bounded("other", EVENT) == EVENT
