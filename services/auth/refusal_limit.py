"""How many refused sign-ins are written down: strangers cause them, and could fill the disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from services.auth.events import record
from services.runtime.audit import AuditEvent
from services.runtime.clock import Clock

PER_MINUTE = 30
"""Of one tenant, by one process; more than tired people cause, and at most 20 MB a day."""


class RefusalLimit:
    """Lets through so many refusals of a tenant a minute; the next one says how many were not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minute = 0
        # Bounded by the number of tenants there are: nobody else has a log.
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def bounded(self, tenant_id: str, event: AuditEvent) -> AuditEvent | None:
        """The event as it is to be written, `left_out` in its details; None: it is left out too."""
        minute = int(self._clock.now().timestamp() // 60)
        if minute != self._minute:
            self._minute = minute
            self._written.clear()
        if self._written[tenant_id] >= PER_MINUTE:
            self._left_out[tenant_id] += 1
            record("refusal_left_out")
            return None
        self._written[tenant_id] += 1
        left_out = self._left_out.pop(tenant_id, 0)
        if not left_out:
            return event
        return replace(event, details={**event.details, "left_out": left_out})
