"""`echomesh import`: store a history through the public API and wait until it is indexed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from echomesh import Client, EchomeshError
from services.cli.import_format import Parsed, Rejected, parse

# One call carries this many messages; the API takes at most 500.
BATCH = 200
# So many conversations are collected at once, whatever a file holds.
MAX_OPEN = 200
_POLL_S = 0.2
_USED = "this id (or this line with other metadata) was stored before as something else"


@dataclass
class ImportReport:
    """What became of the lines."""

    stored: int = 0
    duplicates: int = 0
    indexed: int = 0
    rejected: list[Rejected] = field(default_factory=list)


async def import_lines(
    client: Client,
    lines: Iterable[bytes],
    on_progress: Callable[[ImportReport], None],
) -> ImportReport:
    """Store every valid line, in order within its conversation."""
    report = ImportReport()
    batches: dict[str, list[Parsed]] = {}
    for item in parse(lines):
        if isinstance(item, Rejected):
            report.rejected.append(item)
            continue
        batch = batches.setdefault(item.conversation, [])
        batch.append(item)
        if len(batch) >= BATCH or len(batches) > MAX_OPEN:
            # The oldest open conversation goes first when there are too many.
            full = item.conversation if len(batch) >= BATCH else next(iter(batches))
            await _flush(client, full, batches, report)
            on_progress(report)
    for conversation in list(batches):
        await _flush(client, conversation, batches, report)
        on_progress(report)
    report.rejected.sort(key=lambda rejected: rejected.line)
    return report


async def _flush(
    client: Client, conversation: str, batches: dict[str, list[Parsed]], report: ImportReport
) -> None:
    await _store(client, conversation, batches.pop(conversation), report)


async def _store(
    client: Client, conversation: str, batch: list[Parsed], report: ImportReport
) -> None:
    """Store a batch; halve one that the mesh finds not valid until the lines at fault are known."""
    try:
        messages = [item.message for item in batch]
        done = await client.import_messages(conversation, messages)
    except EchomeshError as error:
        if error.reason != "INVALID_REQUEST":
            raise
        if len(batch) == 1:
            report.rejected.append(Rejected(batch[0].line, _reason(error)))
            return
        half = len(batch) // 2
        await _store(client, conversation, batch[:half], report)
        await _store(client, conversation, batch[half:], report)
        return
    report.stored += done.stored
    report.duplicates += done.duplicates
    refused = set(done.refused)
    report.rejected += [Rejected(p.line, _USED) for p in batch if p.message.request_id in refused]


def _reason(error: EchomeshError) -> str:
    found = [f"{v.field.removeprefix('messages.')}: {v.description}" for v in error.violations]
    return "; ".join(found) or error.message


async def wait_indexed(client: Client, timeout_s: float) -> AsyncIterator[tuple[int, int]]:
    """Yield (memories, pending) until nothing is pending or the time is over."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_s
    while True:
        memories, pending = await client.index_status()
        yield memories, pending
        if not pending or loop.time() > ends:
            return
        await asyncio.sleep(_POLL_S)


__all__ = ["ImportReport", "Parsed", "import_lines", "wait_indexed"]
