"""Keeps the index what the table says it is: notices another life of it, or another model.

A lost index folder, a fresh Qdrant collection or a new embedding model all mean the same: every
memory is queued again, and kept vectors are used where there are any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.memory.embedder import Embedder
from services.memory.index import VectorIndex
from services.memory.indexing import Indexer
from services.memory.model import Job
from services.memory.reconcile import Reconciler, rebuild, summary
from services.memory.store import JobStore
from services.runtime import metrics
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, unavailable
from services.runtime.logs import get_logger

CHECK_S = 5.0
"""How often to look at the index's life, the model, the lag and what was asked for."""

CHECK_LIMIT_S = 600.0
"""A check may walk over everything."""

_WAITING = metrics.gauge("echomesh_memory_jobs_waiting", "Outbox jobs that wait.")
_HELD = metrics.gauge("echomesh_memory_jobs_held", "Outbox jobs that failed too often.")
_LAG = metrics.gauge("echomesh_memory_index_lag_seconds", "Age of the oldest waiting job.")


class Keeper:
    """Runs beside the outbox runner in one process of the service."""

    def __init__(
        self, store: JobStore, embedder: Embedder, index: VectorIndex, indexer: Indexer
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._index = index
        self._indexer = indexer
        self._reconciler = Reconciler(store, index)
        self._model = ""

    async def work(self, jobs: Sequence[Job]) -> None:
        """Do outbox jobs with the model in force; see :meth:`Indexer.bring_in_step`."""
        await self._indexer.bring_in_step(jobs, self._model or await self._find_model())

    async def _find_model(self) -> str:
        """Return the model in force; while embeddings is away, the one recorded last."""
        try:
            self._model = await self._embedder.model()
        except AppError:
            recorded = (await self._store.state()).model
            if not recorded:
                raise unavailable("embeddings") from None
            return recorded
        return self._model

    async def run(self) -> None:
        """Check every few seconds, for ever."""
        while True:
            try:
                with deadline_scope(CHECK_LIMIT_S, extend=True):
                    await self.check()
            except AppError as error:
                get_logger().info("keeper_waits", reason=error.reason, error=error.message)
            except Exception as error:
                get_logger().error("keeper_failed", exc_info=error)
            await asyncio.sleep(CHECK_S)

    async def check(self) -> None:
        """Queue everything if the index or the model is another; reconcile if asked to."""
        await self._report_lag()
        state = await self._store.state()
        if state.reconcile_wanted:
            report = await self._reconciler.reconcile()
            get_logger().info("reconciled", summary=summary(report.as_dict()))
        model, generation = await self._find_model(), await self._index.generation()
        if (generation, model) != (state.generation, state.model):
            queued = await rebuild(self._store)
            await self._store.set_state(generation, model)
            get_logger().info("index_is_new", queued=queued, model=model)

    async def _report_lag(self) -> None:
        waiting, held, oldest_s = await self._store.lag()
        _WAITING.set(waiting)
        _HELD.set(held)
        _LAG.set(oldest_s)
