"""Case 6: kills under writers. What was acknowledged is there, once, and the index agrees.

`ECHOMESH_FAULT_WRITES` says how many writes (default 600; the long run, 5,000, is in
docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

import echomesh
from echomesh import Client, NewMessage
from services.memory.config import MemorySettings
from services.memory.index.qdrant import QdrantIndex, qdrant_client
from tests.faults.mesh import ReplicaMesh
from tests.support.qdrant_server import QdrantProcess

WRITES = int(os.environ.get("ECHOMESH_FAULT_WRITES", "600"))
WRITERS = 8
# What a writer may meet while a part that has no second replica is away; it then tries again.
PASSING = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
PAUSE_S = 0.2
INDEXED_S = 120.0
pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(120 + WRITES // 2),
]


@dataclass
class Writers:
    """Writers who try each write, under one request_id, until it is acknowledged."""

    users: list[Client]
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    # Text of each acknowledged write.
    acknowledged: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    async def write_all(self, count: int) -> None:
        """Until so many writes are acknowledged."""
        async with asyncio.TaskGroup() as group:
            for user in self.users:
                group.create_task(self._write(user, count))

    async def reached(self, count: int) -> None:
        """Wait until so many are."""
        while len(self.acknowledged) < count:
            await asyncio.sleep(0.02)

    async def _write(self, user: Client, count: int) -> None:
        while (number := next(self.numbers)) < count:
            text = f"Parcel {number} stands on shelf {number}."
            while not await self._acknowledged(user, number, text):
                await asyncio.sleep(PAUSE_S)
            self.acknowledged.append(text)

    async def _acknowledged(self, user: Client, number: int, text: str) -> bool:
        try:
            return await WAYS[number % len(WAYS)](user, str(number), text)
        except echomesh.EchomeshError as error:
            assert error.code.name in PASSING, error
            self.errors[error.reason or error.code.name] += 1
            return False


async def by_remember(user: Client, request_id: str, text: str) -> bool:
    await user.remember(text, request_id=request_id)
    return True


async def by_import(user: Client, request_id: str, text: str) -> bool:
    now = datetime.now(UTC)
    message = NewMessage("user", text, speaker="Ann", time=now, request_id=request_id)
    await user.import_messages("imported", [message])
    return True


async def by_chat(user: Client, request_id: str, text: str) -> bool:
    _, final = await user.reply(text, request_id=request_id)
    return final.message_stored == "stored"


# One write in five is a chat's.
WAYS: list[Callable[[Client, str, str], Awaitable[bool]]] = [
    by_remember,
    by_import,
    by_remember,
    by_import,
    by_chat,
]


async def test_no_acknowledged_write_is_lost_when_parts_are_killed(
    mesh: ReplicaMesh, client: Client, qdrant: QdrantProcess
) -> None:
    """Kill -9 of memory, routing and (three times) Postgres under eight writers: 0 lost, 0 twice.

    After `reconcile` the index holds exactly the live memories, in their versions.
    """
    writers = Writers([client.as_user(f"writer-{i}") for i in range(WRITERS)])
    async with asyncio.TaskGroup() as group:
        group.create_task(writers.write_all(WRITES))
        group.create_task(kill_parts(mesh, qdrant, writers))
    await assert_there_once(mesh, writers.acknowledged)
    await assert_index_agrees(mesh, qdrant)


async def kill_parts(mesh: ReplicaMesh, qdrant: QdrantProcess, writers: Writers) -> None:
    """Kill one part after another, spread over the writes."""

    async def index() -> None:
        qdrant.kill()
        await asyncio.to_thread(qdrant.start)

    kills: list[Callable[[], Awaitable[None]]] = [
        lambda: mesh.restart("memory", 0),
        mesh.kill_postgres,
        lambda: mesh.restart("routing", 0),
        index,
        mesh.kill_postgres,
        lambda: mesh.restart("memory", 1),
        mesh.kill_postgres,
        lambda: mesh.restart("routing", 1),
    ]
    for number, kill in enumerate(kills, start=1):
        await writers.reached(number * WRITES // (len(kills) + 2))
        await kill()


async def assert_there_once(mesh: ReplicaMesh, acknowledged: list[str]) -> None:
    """Each text has one memory."""
    assert len(acknowledged) == WRITES
    rows = await mesh.sql("select text from memory.memories where text like 'Parcel %'")
    found = Counter(row["text"] for row in rows)
    assert dict.fromkeys(acknowledged, 1) == found


async def assert_index_agrees(mesh: ReplicaMesh, qdrant: QdrantProcess) -> None:
    """The outbox runs empty, `reconcile` finds what it finds, and then all is as in the table."""
    await drained(mesh)
    said = await mesh.run("memory", "reconcile")
    assert said.startswith("reconciled:"), said
    await drained(mesh)
    in_table = {
        (row["tenant_id"], row["user_id"], row["id"], row["version"])
        for row in await mesh.sql(
            "select tenant_id, user_id, memory_id::text as id, version from memory.memories"
        )
    }
    assert in_table == await indexed(qdrant, {(tenant, user) for tenant, user, _, _ in in_table})


async def drained(mesh: ReplicaMesh) -> None:
    """Wait until no job waits for the index."""
    async with asyncio.timeout(INDEXED_S):
        while (await mesh.sql("select count(*) as n from memory.outbox"))[0]["n"]:
            await asyncio.sleep(0.2)


async def indexed(
    qdrant: QdrantProcess, owners: set[tuple[str, str]]
) -> set[tuple[str, str, str, int]]:
    """(tenant, user, memory, version) of every point of these owners."""
    settings = MemorySettings()
    dimensions, name = settings.embedding_dimensions, settings.qdrant_collection
    index = QdrantIndex(qdrant_client(qdrant.url), name, dimensions)
    found = set()
    try:
        for tenant, user in owners:
            after: str | None = None
            while page := await index.scroll(tenant, user, after, 1000):
                found |= {(tenant, user, entry.memory_id, entry.version) for entry in page}
                after = page[-1].memory_id
    finally:
        await index.close()
    return found
