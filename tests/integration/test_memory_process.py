"""The memory service as a process, with the embedded index and a stand-in for embeddings."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from echomesh.memory.v1 import conversation_pb2 as cpb
from services.runtime.identity import Identity
from tests.support.memory_process import (
    MemoryReplica,
    free_port,
    memory_site,
    running_memory,
)
from tests.support.memory_world import emptied_database
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

ALICE = Identity("acme", "alice")


async def say(memory: MemoryReplica, request_id: str) -> Any:
    """Begin a turn as routing would."""
    request = cpb.BeginTurnRequest(
        request_id=request_id,
        body_sha256=b"h" * 32,
        conversation_id="c1",
        text=f"the locker code is {request_id}",
    )
    return await memory.call(ALICE, "BeginTurn", request)


async def test_memory_process_killed_with_jobs_waiting_loses_nothing_and_leaves_no_orphan(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = await emptied_database(postgres)
    owner = await asyncpg.connect(database.owner("memory"))

    async def indexed(count: int) -> bool:
        found = await owner.fetchval(
            "SELECT count(*) FROM memory.memories WHERE indexed_version = version"
        )
        return bool(found == count)

    try:
        async with memory_site(tmp_path, database) as site:
            away = replace(site, embeddings=f"127.0.0.1:{free_port()}")
            async with running_memory(away) as first:
                stored = await say(first, str(uuid.uuid4()))
                children = psutil.Process(first.pid).children(recursive=True)
                await first.kill()
            assert stored.message.seq == 1
            async with running_memory(site) as second:
                assert (await say(second, "again")).message.seq == 2
                await until(lambda: indexed(2), "indexing both messages")
            await until(lambda: _gone(children), "the end of the killed service's worker")
    finally:
        await owner.close()


async def _gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
