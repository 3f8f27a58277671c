"""Reading a service's audit log over gRPC: one implementation for every service that keeps one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echomesh.common.v1 import audit_pb2
from services.runtime.audit import AuditEvent, AuditLog, user_actor
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity
from services.runtime.postgres import Database

AUDIT_READ = "audit.read"
"""The action of beginning to read the log: it is the one export that there is."""

DEFAULT_PAGE = 500
# Of a page token. It need not be secret: it shows nothing that the caller's entry does not cover.
_TOKEN = re.compile(r"[0-9]{1,18}-[0-9]{1,18}")


@dataclass(frozen=True)
class AuditReader:
    """Pages and the last entry of the calling administrator's tenant."""

    database: Database
    log: AuditLog

    async def page(
        self, identity: Identity, size: int, token: str
    ) -> tuple[list[audit_pb2.AuditEntry], str]:
        """Return entries and the next page's token; raises AppError INVALID_PAGE_TOKEN.

        Nothing is shown but what was there when the caller's reading was recorded.
        """
        place = _place(token) if token else _Place(0, await self._note(identity))
        tenant_id, reader = identity.tenant_id, user_actor(identity)
        async with self.database.tenant(identity, readonly=True) as connection:
            if not await self.log.is_there(connection, tenant_id, place.until, reader, AUDIT_READ):
                raise _invalid_token()
            rows = await self.log.entries(
                connection, tenant_id, place.after, place.until, size or DEFAULT_PAGE
            )
        entries = [_entry(self.log.name, row) for row in rows]
        return entries, _next_token(entries, place.until)

    async def anchor(self, identity: Identity) -> audit_pb2.AuditAnchor:
        """Return the chain's last entry."""
        async with self.database.tenant(identity, readonly=True) as connection:
            last = await self.log.anchor(connection, identity.tenant_id)
        return audit_pb2.AuditAnchor(
            log=self.log.name, tenant_id=last.tenant_id, seq=last.seq, hash=last.hash
        )

    async def _note(self, identity: Identity) -> int:
        """Record that a reading begins; return the entry's number."""
        event = AuditEvent(user_actor(identity), AUDIT_READ, f"audit_log:{self.log.name}")
        async with self.database.tenant(identity) as connection:
            written = await self.log.append(connection, identity.tenant_id, [event])
        self.log.announce(written)
        return written[0].seq


@dataclass(frozen=True)
class _Place:
    """How far a reading is, and where it ends: at the entry that tells of it."""

    after: int
    until: int


def _place(token: str) -> _Place:
    if not _TOKEN.fullmatch(token):
        raise _invalid_token()
    return _Place(*map(int, token.split("-")))


def _next_token(entries: Sequence[audit_pb2.AuditEntry], until: int) -> str:
    last = entries[-1].seq if entries else until
    return f"{last}-{until}" if last < until else ""


def _invalid_token() -> AppError:
    return AppError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid")


def _entry(log: str, row: Any) -> audit_pb2.AuditEntry:
    entry = audit_pb2.AuditEntry(
        log=log,
        tenant_id=row["tenant_id"],
        seq=row["seq"],
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        outcome=row["outcome"],
        details_json=row["details"],
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )
    entry.time.FromDatetime(row["written_at"])
    return entry
