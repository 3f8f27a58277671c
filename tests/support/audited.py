"""Reading audit logs in tests, and tampering with them as somebody with all rights would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from echomesh import AuditAnchor, AuditEntry
from echomesh._auditing import _entry
from echomesh.common.v1 import audit_pb2
from services.cli.audit_chain import ChainCheck

COLUMNS = "tenant_id, actor, action, target, outcome, details"


def entries_of(messages: Iterable[audit_pb2.AuditEntry]) -> list[AuditEntry]:
    """Entries as the SDK gives them."""
    return [_entry(message) for message in messages]


def problems_of(
    entries: Iterable[AuditEntry], log: str, anchors: Iterable[AuditAnchor] = ()
) -> list[tuple[int, str]]:
    """What a check of the chain finds, as number and text."""
    check = ChainCheck(log, anchors)
    for entry in entries:
        check.take(entry)
    check.end()
    return [(problem.seq, problem.text) for problem in check.problems]


def anchor_of(entry: AuditEntry) -> AuditAnchor:
    """The anchor that an entry is."""
    return AuditAnchor(entry.log, entry.tenant_id, entry.seq, entry.hash)


async def audit_rows(owner_dsn: str, schema: str) -> list[Any]:
    """All rows of a service's log, as its owner sees them."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        return await connection.fetch(f"select * from {schema}.audit_log order by tenant_id, seq")
    finally:
        await connection.close()


@asynccontextmanager
async def unguarded(owner_dsn: str, schema: str) -> AsyncIterator[Any]:
    """A connection of the owner with the table's triggers away, as an intruder would have it."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute(f"alter table {schema}.audit_log disable trigger user")
        yield connection
        await connection.execute(f"alter table {schema}.audit_log enable trigger user")
    finally:
        await connection.close()
