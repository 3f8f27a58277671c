"""Checking the index against the table, and filling it anew.

Neither touches the index itself: what is wrong is queued, and the outbox puts it right.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from uuid import UUID

from services.memory.index import VectorIndex
from services.memory.model import Owner
from services.memory.store import JobStore

PAGE = 1_000
"""Ids compared or queued at a time."""

FIRST_ID = UUID(int=0)
"""Before every id."""


@dataclass(slots=True)
class Report:
    """What a reconciliation found and queued."""

    owners: int = 0
    memories: int = 0
    missing: int = 0
    stale: int = 0
    orphaned: int = 0
    left_over: int = 0
    released: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class Reconciler:
    """Walks all owners and compares ids and versions."""

    def __init__(self, store: JobStore, index: VectorIndex) -> None:
        self._store = store
        self._index = index

    async def reconcile(self) -> Report:
        """Queue what the index lacks, has in another version, or should not have.

        Erased memories are checked again for text that should be gone, and held jobs released.
        """
        report = Report(released=await self._store.release_held())
        async for owner in all_owners(self._store):
            report.owners += 1
            await self._owner(owner, report)
            report.left_over += await self._store.erase_left_overs(owner, PAGE)
        await self._store.reconciled(report.as_dict())
        return report

    async def _owner(self, owner: Owner, report: Report) -> None:
        indexed = await self._indexed(owner)
        async for page in live_pages(self._store, owner):
            report.memories += len(page)
            missing = [i for i, _ in page if str(i) not in indexed]
            stale = [i for i, v in page if indexed.get(str(i), v) != v]
            report.missing += len(missing)
            report.stale += len(stale)
            await self._queue(owner, [*missing, *stale])
            for memory_id, _ in page:
                indexed.pop(str(memory_id), None)
        report.orphaned += len(indexed)
        await self._queue(owner, [UUID(text) for text in indexed])

    async def _indexed(self, owner: Owner) -> dict[str, int]:
        found: dict[str, int] = {}
        after: str | None = None
        while page := await self._index.scroll(owner.tenant_id, owner.user_id, after, PAGE):
            found |= {entry.memory_id: entry.version for entry in page}
            after = page[-1].memory_id
        return found

    async def _queue(self, owner: Owner, memory_ids: list[UUID]) -> None:
        for start in range(0, len(memory_ids), PAGE):
            await self._store.requeue(owner, memory_ids[start : start + PAGE])


async def rebuild(store: JobStore) -> int:
    """Queue every live memory for the index and return how many; kept vectors are used again."""
    queued = 0
    async for owner in all_owners(store):
        async for page in live_pages(store, owner):
            await store.requeue(owner, [memory_id for memory_id, _ in page])
            queued += len(page)
    return queued


async def all_owners(store: JobStore) -> AsyncIterator[Owner]:
    """Go through everyone who ever stored something."""
    after: Owner | None = None
    while page := await store.owners(after, PAGE):
        for owner in page:
            yield owner
        after = page[-1]


async def live_pages(store: JobStore, owner: Owner) -> AsyncIterator[list[tuple[UUID, int]]]:
    """Go through the ids and versions of one owner's live memories."""
    after = FIRST_ID
    while page := await store.live_page(owner, after, PAGE):
        yield [(memory_id, version) for memory_id, version, _ in page]
        after = page[-1][0]


def summary(report: Mapping[str, int]) -> str:
    """Return a report as one line for people."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.items())
