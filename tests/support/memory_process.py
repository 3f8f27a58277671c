"""The memory service as real processes, without the rest of the mesh.

A stand-in embeds by words, tokens are signed here, and Postgres is the session's own. Replicas
share the database and, given its URL, a Qdrant server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from echomesh.embeddings.v1 import embeddings_pb2 as epb
from echomesh.embeddings.v1 import embeddings_pb2_grpc as epb_grpc
from echomesh.memory.v1 import conversation_pb2_grpc as cpb_grpc
from echomesh.memory.v1 import memory_pb2_grpc as mpb_grpc
from services.runtime.channel import MeshChannel
from services.runtime.clock import SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.identity import Identity, acting_as
from services.runtime.process import Child, spawn
from services.runtime.server import Registration
from services.runtime.tokens import AssertionSigner, KeySet, TokenValidator
from services.runtime.trust import load_private
from tests.support.memory_fakes import DIMENSIONS, embed
from tests.support.postgres import TestDatabase
from tests.support.tokens import jwks, token_for
from tests.support.transport import serving

_CLOCK = SystemClock()
START_S = 120.0
STOP_S = 20.0


class FakeEmbeddings(epb_grpc.EmbeddingsServiceServicer):
    """Embeds by words."""

    async def Embed(self, request: epb.EmbedRequest, context: Any) -> epb.EmbedResponse:  # noqa: N802
        """Embed texts."""
        vectors = [embed(text).astype("<f4").tobytes() for text in request.texts]
        made = [epb.Embedding(vector=vector, dimensions=DIMENSIONS) for vector in vectors]
        return epb.EmbedResponse(model="fake-1", embeddings=made)

    async def GetModel(  # noqa: N802
        self, request: epb.GetModelRequest, context: Any
    ) -> epb.GetModelResponse:
        """The model."""
        return epb.GetModelResponse(model="fake-1", dimensions=DIMENSIONS)


EMBEDDINGS = Registration(
    epb_grpc.add_EmbeddingsServiceServicer_to_server,
    FakeEmbeddings(),
    "echomesh.embeddings.v1.EmbeddingsService",
)


@dataclass
class MemorySite:
    """What all replicas share: trust, the key that signs tokens, database and embeddings."""

    folder: Path
    database: TestDatabase
    embeddings: str
    signing_key: Ed25519PrivateKey

    def environment(self, name: str, port: int) -> dict[str, str]:
        """The settings of one replica."""
        data = self.folder / name
        data.mkdir(exist_ok=True)
        (data / "jwks.json").write_text(jwks(k1=self.signing_key))
        return {
            **os.environ,
            "ECHOMESH_DATA_DIR": str(data),
            "ECHOMESH_TRUST_DIR": str(self.folder),
            "ECHOMESH_AUTH_TARGET": f"ipv4:127.0.0.1:{free_port()}",
            "ECHOMESH_EMBEDDINGS_TARGET": f"ipv4:{self.embeddings}",
            "ECHOMESH_MEMORY_DATABASE_URL": self.database.app("memory"),
            "ECHOMESH_MEMORY_DATABASE_DIRECT_URL": self.database.owner("memory"),
            "ECHOMESH_MEMORY_JOBS_DATABASE_URL": self.database.jobs("memory"),
            "ECHOMESH_MEMORY_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
            "ECHOMESH_MEMORY_LOG_FILE": str(data / "memory.log"),
            "ECHOMESH_MEMORY_MESH_ADDRESS": f"127.0.0.1:{port}",
            "ECHOMESH_MEMORY_PUBLIC_ADDRESS": f"127.0.0.1:{free_port()}",
        }

    def token(self, identity: Identity) -> str:
        """An access token, good for an hour."""
        expires = datetime.now(UTC) + timedelta(hours=1)
        return token_for(self.signing_key, identity.user_id, expires, tenant=identity.tenant_id)


@asynccontextmanager
async def memory_site(folder: Path, database: TestDatabase) -> AsyncIterator[MemorySite]:
    """Serve embeddings, from the test's own loop, and say where everything is."""
    key = Ed25519PrivateKey.generate()
    (folder / "jwks.json").write_text(jwks(k1=key))
    validator = TokenValidator(KeySet(folder / "jwks.json", None, _CLOCK), _CLOCK)
    async with serving(folder, EMBEDDINGS, name="embeddings", validator=validator) as wire:
        yield MemorySite(folder, database, wire.server.mesh_bound, key)


class MemoryReplica:
    """One process of memory, and calls to it as routing makes them for a user."""

    def __init__(self, site: MemorySite, name: str, settings: Mapping[str, str]) -> None:
        self._site = site
        self._port = free_port()
        self._env = site.environment(name, self._port) | dict(settings)
        self._process: Child | None = None
        self.log = site.folder / name / "memory.log"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "memory is not running"
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it takes calls."""
        # Supervised: it ends with the test however that ends.
        self._process = spawn([sys.executable, "-m", "services.memory"], env=self._env)
        async with self._raw() as raw:
            await asyncio.wait_for(raw.channel_ready(), START_S)

    async def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        await self._end(signal.SIGTERM)

    async def call(self, who: Identity, method: str, request: Any, limit_s: float = 20.0) -> Any:
        """Call an RPC by its name for a user; raises AppError as the mesh's channel does."""
        signer = AssertionSigner("routing", load_private(self._site.folder, "routing"), _CLOCK)
        async with self._raw() as raw:
            channel = MeshChannel(raw, "memory", signer)
            stubs = cpb_grpc.ConversationServiceStub(channel), mpb_grpc.MemoryServiceStub(channel)
            stub = next(stub for stub in stubs if hasattr(stub, method))
            with acting_as(who, self._site.token(who)), deadline_scope(limit_s, extend=True):
                return await getattr(stub, method)(request)

    async def command(self, *arguments: str) -> str:
        """Run one command of an operator with this replica's settings; what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.memory", *arguments),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), START_S)
        assert process.returncode == 0, printed
        return printed.decode()

    def _raw(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=options)

    async def _end(self, signum: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            os.kill(process.pid, signum)
        await asyncio.wait_for(process.wait(), STOP_S)


@asynccontextmanager
async def running_memory(
    site: MemorySite, name: str = "data", **settings: str
) -> AsyncIterator[MemoryReplica]:
    """Run a replica; ``settings`` are memory's own by name, such as ``qdrant_url``."""
    env = {f"ECHOMESH_MEMORY_{key.upper()}": value for key, value in settings.items()}
    replica = MemoryReplica(site, name, env)
    try:
        await replica.start()
        yield replica
    finally:
        await replica.stop()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
