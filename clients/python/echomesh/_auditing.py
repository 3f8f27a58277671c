"""The part of the client by which an administrator reads their tenant's audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from echomesh._calls import Calls
from echomesh.auth.v1 import audit_pb2 as auth_pb2
from echomesh.auth.v1 import audit_pb2_grpc as auth_pb2_grpc
from echomesh.common.v1 import audit_pb2
from echomesh.memory.v1 import audit_pb2 as memory_pb2
from echomesh.memory.v1 import audit_pb2_grpc as memory_pb2_grpc

AUDIT_LOGS = ("auth", "memory")
"""The services that keep an audit log, each a chain of its own for every tenant."""

_PARTS: dict[str, tuple[Any, type[Any]]] = {
    "auth": (auth_pb2, auth_pb2_grpc.AuditServiceStub),
    "memory": (memory_pb2, memory_pb2_grpc.AuditServiceStub),
}


@dataclass(frozen=True)
class AuditEntry:
    """Who did what; `details_json` is the text that was hashed. Hashes have 32 bytes."""

    log: str
    tenant_id: str
    seq: int
    time: datetime
    actor: str
    action: str
    target: str
    outcome: str
    details_json: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True)
class AuditAnchor:
    """A chain's last entry at some time; `seq` 0 and no hash: it has none."""

    log: str
    tenant_id: str
    seq: int
    hash: bytes


class Auditing(Calls):
    """The audit log of the key's tenant, for its administrators."""

    async def audit_entries(self, log: str) -> AsyncIterator[AuditEntry]:
        """All entries of a log (one of `AUDIT_LOGS`) in order; the last tells of this reading."""
        pb, stub = _PARTS[log]
        token = ""
        while True:
            request = pb.ListAuditEntriesRequest(page_token=token)
            answer = await self._unary(stub, "ListAuditEntries", request)
            for entry in answer.entries:
                yield _entry(entry)
            token = answer.next_page_token
            if not token:
                return

    async def audit_anchor(self, log: str) -> AuditAnchor:
        """The last entry of a log, to be kept somewhere else."""
        pb, stub = _PARTS[log]
        answer = await self._unary(stub, "GetAuditAnchor", pb.GetAuditAnchorRequest())
        found = answer.anchor
        return AuditAnchor(found.log, found.tenant_id, found.seq, found.hash)


def _entry(m: audit_pb2.AuditEntry) -> AuditEntry:
    # Whole microseconds: a float of seconds would lose some.
    since_1970 = timedelta(seconds=m.time.seconds, microseconds=m.time.nanos // 1000)
    return AuditEntry(
        log=m.log,
        tenant_id=m.tenant_id,
        seq=m.seq,
        time=datetime(1970, 1, 1, tzinfo=UTC) + since_1970,
        actor=m.actor,
        action=m.action,
        target=m.target,
        outcome=m.outcome,
        details_json=m.details_json,
        previous_hash=m.previous_hash,
        hash=m.hash,
    )
