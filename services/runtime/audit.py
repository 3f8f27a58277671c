"""The audit log of one service: written in the transaction of the change it tells of.

The table's trigger gives each entry its number, time and hashes (see a service's migrations), so
no code of ours can write a chain wrongly. docs/audit.md says what is recorded, and how to check it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from opentelemetry import trace

from services.runtime.identity import Identity
from services.runtime.log_filters import redact_text
from services.runtime.logs import get_evidence_logger
from services.runtime.postgres import Connection

Outcome = Literal["ok", "refused"]
Detail = str | int | Sequence[str]

BOOTSTRAP = "bootstrap"
"""The actor of what is done before there is a user."""

ANCHOR_EVENT = "audit_appended"
"""The log line that tells each new entry's hash, and so is an anchor away from the database."""


@dataclass(frozen=True)
class AuditEvent:
    """What happened: `target` and `actor` are `<kind>:<id>`, `details` names and ids alone."""

    actor: str
    action: str
    target: str = ""
    outcome: Outcome = "ok"
    details: Mapping[str, Detail] = field(default_factory=dict)


@dataclass(frozen=True)
class Anchor:
    """The last entry of a tenant's chain at some time; `seq` 0: it has none."""

    tenant_id: str
    seq: int
    hash: bytes


def user_actor(identity: Identity) -> str:
    """The actor that a signed-in user is."""
    return f"user:{identity.user_id}"


class AuditLog:
    """The table `audit_log` of a service's schema, on connections whose tenant is set."""

    def __init__(self, schema: str) -> None:
        """Take the schema's name, which is the log's name too."""
        self.name = schema
        self._insert = (
            f"insert into {schema}.audit_log (tenant_id, actor, action, target, outcome, details) "  # noqa: S608
            "values ($1, $2, $3, $4, $5, $6) returning seq, hash"
        )
        self._page = (
            f"select * from {schema}.audit_log where tenant_id = $1 "  # noqa: S608
            "and seq > $2 and seq <= $3 order by seq limit $4"
        )
        self._done_by = (
            f"select true from {schema}.audit_log "  # noqa: S608
            "where tenant_id = $1 and seq = $2 and actor = $3 and action = $4"
        )
        self._last = (
            f"select seq, hash from {schema}.audit_log where tenant_id = $1 "  # noqa: S608
            "order by seq desc limit 1"
        )

    async def append(
        self, connection: Connection, tenant_id: str, events: Iterable[AuditEvent]
    ) -> list[Anchor]:
        """Write events as the last thing a transaction does: other writers of the chain wait.

        Returns the new entries' anchors, to be told by `announce` once it is committed.
        """
        written = []
        for event in events:
            row: Any = await connection.fetchrow(
                self._insert,
                tenant_id,
                event.actor,
                event.action,
                event.target,
                event.outcome,
                _details_text(event.details),
            )
            written.append(Anchor(tenant_id, row["seq"], row["hash"]))
        return written

    async def entries(
        self, connection: Connection, tenant_id: str, after: int, until: int, limit: int
    ) -> Sequence[Any]:
        """Return rows of the chain in order, after number `after` and up to `until`."""
        rows: Sequence[Any] = await connection.fetch(self._page, tenant_id, after, until, limit)
        return rows

    async def is_there(
        self, connection: Connection, tenant_id: str, seq: int, actor: str, action: str
    ) -> bool:
        """Whether the entry of that number tells that `actor` did `action`."""
        found = await connection.fetchval(self._done_by, tenant_id, seq, actor, action)
        return found is not None

    async def anchor(self, connection: Connection, tenant_id: str) -> Anchor:
        """Return the chain's last entry."""
        row: Any = await connection.fetchrow(self._last, tenant_id)
        return Anchor(tenant_id, row["seq"], row["hash"]) if row else Anchor(tenant_id, 0, b"")

    def announce(self, written: Iterable[Anchor]) -> None:
        """Log committed entries' hashes: what keeps the logs keeps anchors of the chain."""
        for anchor in written:
            get_evidence_logger().info(
                ANCHOR_EVENT,
                log=self.name,
                tenant_id=anchor.tenant_id,
                seq=anchor.seq,
                hash=anchor.hash.hex(),
            )


def _details_text(details: Mapping[str, Detail]) -> str:
    """The details as the text that is hashed, with the trace by which the call is found."""
    known = {name: _clean(value) for name, value in details.items()}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        known["trace_id"] = trace.format_trace_id(span.trace_id)
    return json.dumps(known, sort_keys=True, ensure_ascii=False)


def _clean(value: Detail) -> Detail:
    """No caller puts a secret here; were one here by mistake, it would be here for good."""
    if isinstance(value, int):
        return value
    return redact_text(value) if isinstance(value, str) else [redact_text(v) for v in value]
