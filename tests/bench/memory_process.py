"""Memory's own parts over a real Postgres and the real embedded index, without the mesh around.

Recall at sizes that would take hours to embed is measured here: documents get generated vectors
(random directions, as many token vectors as words), while questions are embedded for real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.embeddings.batching import Priority
from services.embeddings.encoder import OnnxEncoder
from services.embeddings.engine import Engine, EngineLimits
from services.embeddings.metrics import EngineMetrics
from services.embeddings.model_folder import ensure_built
from services.memory.embedder import DocumentVector, QueryVector
from services.memory.index.edge import EdgeIndex, edge_supervisor
from services.memory.indexing import Indexer
from services.memory.keeper import Keeper
from services.memory.outbox import OutboxLimits, OutboxRunner
from services.memory.postgres.job_store import PostgresJobStore
from services.memory.postgres.stores import PostgresStore
from services.memory.recall import TOKEN_DIMENSIONS
from services.memory.recaller import Recaller, RecallLimits
from services.runtime import garbage
from services.runtime.clock import SystemClock
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.postgres import Database
from services.runtime.process import socket_folder
from tests.support.postgres import PostgresServer

DIMENSIONS = 384
_EMBED_S = 10.0


@dataclass
class MemoryProcess:
    """The parts that a benchmark needs."""

    store: PostgresStore
    jobs: PostgresJobStore
    recaller: Recaller
    folder: Path

    async def settle(self) -> None:
        """Return when the outbox is empty."""
        while waiting := (await self.jobs.lag())[0]:
            await asyncio.sleep(min(5.0, max(0.2, waiting / 20_000)))  # counting them takes time


class HalfReal:
    """An embedder: real vectors for questions, generated ones for documents."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._random = np.random.default_rng(0)

    async def model(self) -> str:
        """The real model's name."""
        return self._engine.info.version

    async def query(self, text: str) -> QueryVector:
        """Embed for real."""
        found = (await self._engine.embed([text], Priority.INTERACTIVE, _EMBED_S))[0]
        tokens = found.token_vectors.vectors.tobytes()
        return QueryVector(await self.model(), found.vector.tolist(), tokens)

    async def documents(self, texts: Sequence[str]) -> list[DocumentVector]:
        """Random unit vectors, and random token vectors of a text's length."""
        drawn = self._random.standard_normal((len(texts), DIMENSIONS))
        units = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype("<f2")
        return [
            DocumentVector(await self.model(), DIMENSIONS, unit.tobytes(), self._tokens(text))
            for unit, text in zip(units, texts, strict=True)
        ]

    def _tokens(self, text: str) -> bytes:
        shape = (len(text.split()) + 2, TOKEN_DIMENSIONS)
        return self._random.integers(-40, 40, shape, dtype=np.int8).tobytes()


@asynccontextmanager
async def memory_process(folder: Path) -> AsyncIterator[MemoryProcess]:
    """Start Postgres, the index worker and the outbox runner in `folder`."""
    async with AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(folder / "postgres")
        await postgres.start()
        stack.push_async_callback(postgres.stop)
        database = await PostgresServer(postgres).create_database("memory")
        app = Database(database.app("memory"), name="bench")
        jobs_database = Database(database.jobs("memory"), name="bench-jobs")
        stack.push_async_callback(app.close)
        stack.push_async_callback(jobs_database.close)
        index = EdgeIndex(edge_supervisor(folder / "index", DIMENSIONS, socket_folder(folder)))
        stack.push_async_callback(index.close)
        await index.start()
        embedder = HalfReal(await _engine(folder, stack))
        store, jobs = PostgresStore(app), PostgresJobStore(jobs_database)
        keeper = Keeper(jobs, embedder, index, Indexer(jobs, embedder, index))
        await _in_background(stack, OutboxRunner(jobs, keeper.work, OutboxLimits()))
        recaller = Recaller(store, embedder, index, SystemClock(), RecallLimits())
        garbage.settle()  # as every service does once it is loaded
        yield MemoryProcess(store, jobs, recaller, folder)


async def _engine(folder: Path, stack: AsyncExitStack) -> Engine:
    encoder = OnnxEncoder(ensure_built(None, folder / "models"))
    engine = Engine(encoder, EngineLimits(), SystemClock(), EngineMetrics())
    engine.start()
    stack.push_async_callback(engine.close)
    return engine


async def _in_background(stack: AsyncExitStack, runner: OutboxRunner) -> None:
    task = asyncio.create_task(runner.run())

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)
