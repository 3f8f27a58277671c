"""Replicas of memory as processes over one Qdrant, with a network between that can be spoiled."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from echomesh.memory.v1 import memory_pb2 as mpb
from services.memory.index import IndexEntry, VectorIndex
from services.memory.index.qdrant import QdrantIndex, qdrant_client
from services.runtime.identity import Identity
from tests.support.memory_fakes import DIMENSIONS
from tests.support.memory_process import MemoryReplica, MemorySite, memory_site, running_memory
from tests.support.network import Network, network_to
from tests.support.postgres import TestDatabase
from tests.support.qdrant_server import QdrantProcess, running_qdrant

ALICE = Identity("acme", "alice")
COLLECTION = "echomesh_memories"


@dataclass
class World:
    """One Qdrant, the way to it, the tables, and where replicas of memory can be started."""

    site: MemorySite
    qdrant: QdrantProcess
    network: Network
    tables: asyncpg.Connection
    index: VectorIndex

    def memory(self, name: str = "one", *, by: str = "", **settings: str) -> Any:
        """A replica of memory that reaches the index by the network, or by the URL ``by``."""
        # The stand-in for embeddings is not what fails here, however busy the machine.
        settings = {"recall_embed_s": "5", "qdrant_url": by or self.network.url, **settings}
        return running_memory(self.site, name, **settings)

    async def live(self) -> dict[str, int]:
        """Versions of all live memories by id, as the tables say."""
        rows = await self.tables.fetch(
            "SELECT memory_id, version FROM memory.memories WHERE forgotten_at IS NULL"
        )
        return {str(row["memory_id"]): row["version"] for row in rows}

    async def indexed(self) -> dict[str, int]:
        """Versions of all Alice's points by id, as the index says (not by the network)."""
        found: list[IndexEntry] = []
        while page := await self.index.scroll(
            ALICE.tenant_id, ALICE.user_id, found[-1].memory_id if found else None, 1000
        ):
            found += page
        return {entry.memory_id: entry.version for entry in found}

    async def jobs(self) -> int:
        """How many outbox jobs there are."""
        return int(await self.tables.fetchval("SELECT count(*) FROM memory.outbox"))

    async def in_step(self) -> bool:
        """Whether nothing is left to do and the index equals the tables."""
        return await self.jobs() == 0 and await self.live() == await self.indexed()


@asynccontextmanager
async def index_world(folder: Path, database: TestDatabase) -> AsyncIterator[World]:
    """A world with no memory running yet."""
    tables = await asyncpg.connect(database.owner("memory"))
    with running_qdrant(folder / "qdrant") as qdrant, network_to(qdrant.port) as network:
        index = QdrantIndex(qdrant_client(qdrant.url), COLLECTION, DIMENSIONS)
        async with memory_site(folder, database) as site:
            yield World(site, qdrant, network, tables, index)
        await index.close()
    await tables.close()


async def remember(memory: MemoryReplica, *texts: str) -> list[str]:
    """Store texts as memories of Alice; their ids, once they are acknowledged."""
    ids: list[str] = []
    for start in range(0, len(texts), 500):
        batch = [
            mpb.NewMemory(request_id=uuid.uuid4().hex, text=text)
            for text in texts[start : start + 500]
        ]
        request = mpb.BatchRememberRequest(memories=batch)
        stored = await memory.call(ALICE, "BatchRemember", request)
        ids += [each.id for each in stored.memories]
    return ids


async def recall(memory: MemoryReplica, query: str, limit_s: float = 20.0) -> mpb.RecallResponse:
    """Ask for Alice."""
    answer: mpb.RecallResponse = await memory.call(
        ALICE, "Recall", mpb.RecallRequest(query=query), limit_s
    )
    return answer


def texts(answer: mpb.RecallResponse) -> list[str]:
    """What was recalled."""
    return [hit.memory.text for hit in answer.hits]


def numbered(numbers: Sequence[int]) -> list[str]:
    """Texts that can be told apart by a word."""
    return [f"The locker code of shed w{number:04d}x is {number * 7}." for number in numbers]
