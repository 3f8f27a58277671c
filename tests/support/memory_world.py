"""A memory service without its network: real Postgres, stand-ins for embeddings and the index."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from services.memory.indexing import Indexer
from services.memory.keeper import Keeper
from services.memory.model import BeginTurn, CompleteTurn, NewMemory, NewMessage, Owner
from services.memory.outbox import OutboxLimits, OutboxRunner
from services.memory.postgres.job_store import PostgresJobStore
from services.memory.postgres.stores import PostgresStore
from services.memory.recall import document_terms
from services.memory.recaller import Question, Recalled, Recaller, RecallLimits
from services.runtime.clock import FakeClock
from services.runtime.postgres import Database
from tests.support.memory_fakes import FakeEmbedder, FakeIndex
from tests.support.postgres import PostgresServer, TestDatabase

NOW = datetime(2026, 5, 8, 12, 0, tzinfo=UTC)
ALICE = Owner("acme", "alice")
BOB = Owner("acme", "bob")
EVE = Owner("evil", "alice")

TABLES = (
    "conversations",
    "messages",
    "turns",
    "memories",
    "memory_versions",
    "memory_vectors",
    "terms",
    "speakers",
    "corpora",
    "outbox",
    "index_state",
)


@dataclass
class World:
    """The parts of one memory service."""

    store: PostgresStore
    jobs: PostgresJobStore
    index: FakeIndex
    embedder: FakeEmbedder
    keeper: Keeper
    runner: OutboxRunner
    recaller: Recaller

    async def settle(self) -> int:
        """Run outbox jobs until none is due; return how many ran."""
        ran = 0
        while found := await self.runner.run_once():
            ran += found
        return ran

    async def recall(self, owner: Owner, text: str, **options: object) -> Recalled:
        """Ask a question."""
        question = Question(text=text, limit=10, **options)  # type: ignore[arg-type]
        return await self.recaller.recall(owner, question)

    async def say(self, owner: Owner, *texts: str, conversation: str = "c1") -> list[UUID]:
        """Append messages of the user."""
        messages = [message(text) for text in texts]
        done = await self.store.append_messages(owner, conversation, messages, NOW)
        return list(done.message_ids)


_kept: dict[int, TestDatabase] = {}


async def emptied_database(server: PostgresServer) -> TestDatabase:
    """Return the session's one database for memory tests, emptied: a fresh one takes a second."""
    if id(server) not in _kept:
        _kept[id(server)] = await server.create_database("memory")
    database = _kept[id(server)]
    owner = await asyncpg.connect(database.owner("memory"))
    try:
        for table in TABLES:
            await owner.execute(f"DELETE FROM memory.{table}")
        await owner.execute("INSERT INTO memory.index_state DEFAULT VALUES")
    finally:
        await owner.close()
    return database


@asynccontextmanager
async def memory_world(
    database: TestDatabase, limits: RecallLimits | None = None
) -> AsyncIterator[World]:
    """Put a world together over a migrated database."""
    app = Database(database.app("memory"), name="test")
    jobs_db = Database(database.jobs("memory"), name="test-jobs")
    store, jobs = PostgresStore(app), PostgresJobStore(jobs_db)
    index, embedder = FakeIndex(), FakeEmbedder()
    keeper = Keeper(jobs, embedder, index, Indexer(jobs, embedder, index))
    recaller = Recaller(store, embedder, index, FakeClock(NOW), limits or RecallLimits())
    runner = OutboxRunner(jobs, keeper.work, OutboxLimits(attempts=2))
    try:
        yield World(store, jobs, index, embedder, keeper, runner, recaller)
    finally:
        await app.close()
        await jobs_db.close()


def message(text: str, request_id: str = "", **more: object) -> NewMessage:
    """A message of the user."""
    values: dict[str, object] = {
        "message_id": uuid.uuid4(),
        "request_id": request_id or uuid.uuid4().hex,
        "role": "user",
        "speaker": "Alice",
        "text": text,
        "said_at": NOW,
        "body_sha256": text.encode(),
        **more,
    }
    return NewMessage(**values)  # type: ignore[arg-type]


def fact(text: str, request_id: str = "", metadata: Mapping[str, str] | None = None) -> NewMemory:
    """A memory to store."""
    return NewMemory(
        memory_id=uuid.uuid4(),
        kind="fact",
        text=text,
        speaker="user",
        role="user",
        said_at=NOW,
        terms=document_terms(text, NOW),
        metadata=metadata or {},
        request_id=request_id or uuid.uuid4().hex,
        body_sha256=text.encode(),
    )


def begin(request_id: str, text: str = "hello", **more: object) -> BeginTurn:
    """The user's message of a turn."""
    values: dict[str, object] = {
        "request_id": request_id,
        "body_sha256": text.encode().ljust(32, b"."),
        "conversation_id": "c1",
        "message_id": uuid.uuid4(),
        "text": text,
        "speaker": "Alice",
        "metadata": {},
        "parent_message_id": None,
        "recent_limit": 10,
        "now": NOW,
        **more,
    }
    return BeginTurn(**values)  # type: ignore[arg-type]


def complete(request_id: str, epoch: int, text: str = "hi") -> CompleteTurn:
    """The reply of a turn."""
    return CompleteTurn(
        request_id=request_id,
        epoch=epoch,
        reply_id=uuid.uuid4(),
        text=text,
        speaker="Echo",
        finish_reason="stop",
        model="extractive",
        metadata={},
        now=NOW,
    )
