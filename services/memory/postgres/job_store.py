"""The job store over a database, with the rights of the jobs role.

Jobs carry ids across owners; whatever reads or writes a person's rows sets that owner first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from services.memory.model import IndexState, Job, Owner, Remembered, Vector
from services.memory.postgres import derived, outbox
from services.runtime.postgres import Database


class PostgresJobStore:
    """See :class:`services.memory.store.JobStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, limit: int, lease_s: float) -> list[Job]:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            return await outbox.claim(conn, limit, lease_s)

    async def done(self, jobs: Sequence[Job]) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await outbox.done(conn, jobs)

    async def hold(self, jobs: Sequence[Job], lease_s: float) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await outbox.hold(conn, jobs, lease_s)

    async def hand_back(self, jobs: Sequence[Job]) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await outbox.hand_back(conn, jobs)

    async def failed(self, jobs: Sequence[Job], max_attempts: int) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await outbox.failed(conn, jobs, max_attempts)

    async def lag(self) -> tuple[int, int, float]:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            return await outbox.lag(conn)

    async def rows(self, owner: Owner, model: str, memory_ids: Sequence[UUID]) -> list[Remembered]:
        """See :class:`JobStore`."""
        async with self._db.tenant(owner) as conn:
            return await derived.rows(conn, owner, model, memory_ids)

    async def put_vectors(self, owner: Owner, vectors: Mapping[UUID, Vector]) -> None:
        """See :class:`JobStore`."""
        async with self._db.tenant(owner) as conn:
            await derived.put_vectors(conn, owner, vectors)

    async def mark_indexed(self, owner: Owner, versions: Mapping[UUID, int]) -> None:
        """See :class:`JobStore`."""
        async with self._db.tenant(owner) as conn:
            await derived.mark_indexed(conn, owner, versions)

    async def owners(self, after: Owner | None, limit: int) -> list[Owner]:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            return await derived.owners(conn, after, limit)

    async def live_page(self, owner: Owner, after: UUID, limit: int) -> list[tuple[UUID, int, int]]:
        """See :class:`JobStore`."""
        async with self._db.tenant(owner) as conn:
            return await derived.live_page(conn, owner, after, limit)

    async def requeue(self, owner: Owner, memory_ids: Sequence[UUID]) -> None:
        """See :class:`JobStore`."""
        async with self._db.tenant(owner) as conn:
            await derived.requeue(conn, owner, memory_ids)

    async def erase_left_overs(self, owner: Owner, limit: int) -> int:
        """See :class:`JobStore`."""
        async with self._db.tenant(owner) as conn:
            return await derived.erase_left_overs(conn, owner, limit)

    async def release_held(self) -> int:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            return await derived.release_held(conn)

    async def state(self) -> IndexState:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            return await derived.state(conn)

    async def set_state(self, generation: str, model: str) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await derived.set_state(conn, generation, model)

    async def ask_reconcile(self) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await derived.ask_reconcile(conn)

    async def reconciled(self, report: Mapping[str, int]) -> None:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            await derived.reconciled(conn, report)

    async def report(self) -> dict[str, int]:
        """See :class:`JobStore`."""
        async with self._db.transaction() as conn:
            return await derived.report(conn)
