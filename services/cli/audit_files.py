"""Archives of an audit log: files of one tenant's entries, a JSON object a line, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from echomesh import AuditEntry
from services.cli.files import CommandError


def archive_line(entry: AuditEntry) -> str:
    """An entry as a line of an archive; it is an anchor too, by the names of its fields."""
    values = {**vars(entry), "time": entry.time.astimezone(UTC).isoformat()}
    hashes = {"previous_hash": entry.previous_hash.hex(), "hash": entry.hash.hex()}
    return json.dumps({**values, **hashes}, ensure_ascii=False)


def read_line(line: str) -> AuditEntry:
    """The entry of a line of an archive; raises ValueError, KeyError, TypeError."""
    values = json.loads(line)
    for name in ("previous_hash", "hash"):
        values[name] = bytes.fromhex(values[name])
    return AuditEntry(**{**values, "time": datetime.fromisoformat(values["time"])})


def read_archives(paths: Iterable[Path], first_left: AuditEntry) -> Iterator[AuditEntry]:
    """The archived entries that come before the first one of a chain that is left, in order.

    Files of other chains count for nothing. Raises CommandError for a file that is no archive.
    """
    firsts = [(entry, path) for path in paths for entry in _entries(path, only_first=True)]
    chain = (first_left.log, first_left.tenant_id)
    mine = sorted((e.seq, path) for e, path in firsts if (e.log, e.tenant_id) == chain)
    seen = 0
    for _, path in mine:
        for entry in _entries(path):
            # An archiving that was cut short leaves a file of entries that the next one has too.
            if seen < entry.seq < first_left.seq:
                seen = entry.seq
                yield entry


def _entries(path: Path, *, only_first: bool = False) -> Iterator[AuditEntry]:
    try:
        with path.open(encoding="utf-8") as lines:
            # An empty file is none either: a first line that is missing is as one that is junk.
            yield read_line(lines.readline())
            for line in () if only_first else lines:
                yield read_line(line)
    except (OSError, ValueError, KeyError, TypeError):
        raise CommandError(f"{path} is no archive of an audit log") from None
