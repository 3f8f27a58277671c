"""Moves old entries of an audit log out of the database, into files that go on proving the chain.

What is left of a chain begins after the last of them, and says so itself: an entry `audit.archive`
names that one's number and hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import asyncpg

from echomesh import AuditEntry
from services.cli.audit_chain import ARCHIVE, ChainCheck
from services.cli.audit_files import archive_line
from services.cli.files import CommandError

# Rows that Postgres sends at once.
_BATCH = 1000
# Others write to the chain meanwhile, each for a moment.
_LOCK_TIMEOUT = "set local lock_timeout = '30s'"
# The database refuses to delete entries in any other transaction; see the migrations.
_ARCHIVING = "set local echomesh.audit_archive = 'on'"


@dataclass(frozen=True)
class Archived:
    """Entries `first` to `last` of a tenant's chain, and the file that holds them now."""

    tenant_id: str
    first: int
    last: int
    path: Path


async def archive(owner_url: str, log: str, before: datetime, out: Path) -> list[Archived]:
    """Move entries from before a time into files in `out`; a chain's last entry always stays.

    `owner_url` is the address of the schema's owner. Each tenant's file is on the disk before its
    entries are deleted. Raises CommandError, also for a chain that is not whole: it stays as it is.
    """
    try:
        connection = await asyncpg.connect(owner_url, timeout=10)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError) as error:
        raise CommandError(f"the database cannot be reached: {error}") from None
    try:
        tenants = await connection.fetch(f"select distinct tenant_id from {log}.audit_log")  # noqa: S608
        moved = [await _move(connection, log, row["tenant_id"], before, out) for row in tenants]
    except asyncpg.PostgresError as error:
        raise CommandError(f"the database refuses: {error}") from None
    finally:
        await connection.close()
    return [each for each in moved if each]


async def _move(
    connection: Any, log: str, tenant_id: str, before: datetime, out: Path
) -> Archived | None:
    async with connection.transaction():
        await connection.execute(_LOCK_TIMEOUT)
        last = await connection.fetchval(_last_before(log), tenant_id, before)
        if last is None:
            return None
        check, path, sha256 = await _copy_out(connection, log, tenant_id, last, out)
        await connection.execute(_ARCHIVING)
        delete = f"delete from {log}.audit_log where tenant_id = $1 and seq <= $2"  # noqa: S608
        await connection.execute(delete, tenant_id, last)
        # Last of all: from here on others who write to the chain wait.
        await connection.execute(_say(log), tenant_id, ARCHIVE, _details(check, sha256))
    return Archived(tenant_id, check.seq - check.count + 1, check.seq, path)


def _last_before(log: str) -> str:
    """The number of the last entry to go: all up to it are older, and one at least stays."""
    return (
        "select newest from (select coalesce("  # noqa: S608
        f"(select min(seq) from {log}.audit_log where tenant_id = $1 and written_at >= $2), "
        f"max(seq)) - 1 as newest, min(seq) as oldest from {log}.audit_log where tenant_id = $1) "
        "as found where newest >= oldest"
    )


def _say(log: str) -> str:
    return (
        f"insert into {log}.audit_log (tenant_id, actor, action, target, outcome, details) "  # noqa: S608
        f"values ($1, 'role:' || current_user, $2, 'audit_log:{log}', 'ok', $3)"
    )


def _details(check: ChainCheck, sha256: str) -> str:
    last = check.last
    digest = last.hash.hex() if last else ""
    return json.dumps({"file_sha256": sha256, "hash": digest, "through": check.seq})


async def _copy_out(
    connection: Any, log: str, tenant_id: str, last: int, out: Path
) -> tuple[ChainCheck, Path, str]:
    """Write entries up to number `last`, each checked; return the check, the file and its hash."""
    check, digest = ChainCheck(log, []), hashlib.sha256()
    draft = out / f".{log}-{quote(tenant_id, safe='')}.{os.getpid()}"
    sql = f"select * from {log}.audit_log where tenant_id = $1 and seq <= $2 order by seq"  # noqa: S608
    try:
        with _private(draft) as file:
            async for row in connection.cursor(sql, tenant_id, last, prefetch=_BATCH):
                entry = _entry(log, row)
                check.take(entry)
                if check.problems:
                    raise CommandError(_not_whole(log, tenant_id, check))
                line = archive_line(entry).encode() + b"\n"
                digest.update(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        name = f"{log}-{quote(tenant_id, safe='')}-{check.seq - check.count + 1}-{check.seq}.jsonl"
        path = draft.replace(out / name)
        _sync(out)
    except OSError as error:
        raise CommandError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            draft.unlink()
    return check, path, digest.hexdigest()


def _not_whole(log: str, tenant_id: str, check: ChainCheck) -> str:
    problem = check.problems[0]
    return (
        f"{log}, tenant {tenant_id}, entry {problem.seq}: {problem.text}."
        " A chain that is not whole is not archived"
    )


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _sync(folder: Path) -> None:
    """Let a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(log: str, row: Any) -> AuditEntry:
    return AuditEntry(
        log=log,
        tenant_id=row["tenant_id"],
        seq=row["seq"],
        time=row["written_at"],
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        outcome=row["outcome"],
        details_json=row["details"],
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )
