"""The memory service as a process, with the embedded index and a stand-in for embeddings."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil

from echomesh.embeddings.v1 import embeddings_pb2 as epb
from echomesh.embeddings.v1 import embeddings_pb2_grpc as epb_grpc
from echomesh.memory.v1 import conversation_pb2 as cpb
from echomesh.memory.v1 import conversation_pb2_grpc as cpb_grpc
from services.runtime.channel import MeshChannel
from services.runtime.clock import SystemClock
from services.runtime.identity import Identity, acting_as
from services.runtime.server import Registration
from services.runtime.tokens import AssertionSigner
from services.runtime.trust import load_private
from tests.support.memory_fakes import embed
from tests.support.memory_world import emptied_database
from tests.support.postgres import PostgresServer, TestDatabase
from tests.support.transport import serving

CONVERGES_S = 30.0
"""Ten seconds are promised; a loaded test machine gets more."""


class FakeEmbeddings(epb_grpc.EmbeddingsServiceServicer):
    """Embeds by words."""

    async def Embed(self, request: epb.EmbedRequest, context: Any) -> epb.EmbedResponse:  # noqa: N802
        """Embed texts."""
        vectors = [embed(text).astype("<f4").tobytes() for text in request.texts]
        return epb.EmbedResponse(
            model="fake-1", embeddings=[epb.Embedding(vector=v, dimensions=32) for v in vectors]
        )

    async def GetModel(  # noqa: N802
        self, request: epb.GetModelRequest, context: Any
    ) -> epb.GetModelResponse:
        """The model."""
        return epb.GetModelResponse(model="fake-1", dimensions=32)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, database: TestDatabase, embeddings: str, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "ECHOMESH_DATA_DIR": str(folder / "data"),
        "ECHOMESH_TRUST_DIR": str(folder),
        "ECHOMESH_EMBEDDINGS_TARGET": f"ipv4:{embeddings}",
        "ECHOMESH_MEMORY_DATABASE_URL": database.app("memory"),
        "ECHOMESH_MEMORY_DATABASE_DIRECT_URL": database.owner("memory"),
        "ECHOMESH_MEMORY_JOBS_DATABASE_URL": database.jobs("memory"),
        "ECHOMESH_MEMORY_EMBEDDING_DIMENSIONS": "32",
        "ECHOMESH_MEMORY_MESH_ADDRESS": f"127.0.0.1:{port}",
        "ECHOMESH_MEMORY_PUBLIC_ADDRESS": f"127.0.0.1:{free_port()}",
    }


@asynccontextmanager
async def process(env: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.memory", env=dict(env)
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGTERM)
        await asyncio.wait_for(started.wait(), 20)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    async with asyncio.timeout(CONVERGES_S):
        while not await condition():
            await asyncio.sleep(0.1)
    assert what


async def say(folder: Path, port: int, request_id: str) -> cpb.BeginTurnResponse:
    """Begin a turn as routing would, once the service is there."""
    signer = AssertionSigner("routing", load_private(folder, "routing"), SystemClock())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as raw:
        await asyncio.wait_for(raw.channel_ready(), CONVERGES_S)
        stub = cpb_grpc.ConversationServiceStub(MeshChannel(raw, "memory", signer))
        with acting_as(Identity("acme", "alice")):
            answer: cpb.BeginTurnResponse = await stub.BeginTurn(
                cpb.BeginTurnRequest(
                    request_id=request_id,
                    body_sha256=b"h" * 32,
                    conversation_id="c1",
                    text=f"the locker code is {request_id}",
                )
            )
            return answer


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

    registration = Registration(
        epb_grpc.add_EmbeddingsServiceServicer_to_server,
        FakeEmbeddings(),
        "echomesh.embeddings.v1.EmbeddingsService",
    )
    port = free_port()
    try:
        away = f"127.0.0.1:{free_port()}"
        (tmp_path / "data").mkdir()
        async with serving(tmp_path, registration, name="embeddings") as embeddings:
            env = environment(tmp_path, database, away, port)
            async with process(env) as first:
                stored = await say(tmp_path, port, str(uuid.uuid4()))
                children = psutil.Process(first.pid).children(recursive=True)
                first.kill()
                await first.wait()
            assert stored.message.seq == 1
            env = environment(tmp_path, database, embeddings.server.mesh_bound, port)
            async with process(env):
                second = await say(tmp_path, port, "again")
                assert second.message.seq == 2
                await until(lambda: indexed(2), "both messages are indexed")
            await until(lambda: _gone(children), "the killed service's worker ends")
    finally:
        await owner.close()


async def _gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
