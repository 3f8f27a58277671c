"""The embeddings service alone, as a process, with many callers at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from echomesh.embeddings.v1 import embeddings_pb2 as pb
from echomesh.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from services.runtime.channel import ChannelFactory
from services.runtime.clock import SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionSigner
from services.runtime.trust import create_trust, load_private
from tests.support.mesh import free_port_base, until

# Memory is who asks it in a mesh.
_CALLER = "memory"
_REQUEST = 32
_CALL_S = 600.0


class EmbeddingService:
    """A running service over `folder` as its data folder; `embed` calls it from `clients` tasks."""

    def __init__(self, folder: Path, threads: int, clients: int) -> None:
        self._clients = clients
        self._trust = folder / "trust"
        create_trust(self._trust, ("embeddings", _CALLER))
        self._address = f"127.0.0.1:{free_port_base()}"
        settings = {
            "ECHOMESH_EMBEDDINGS_MESH_ADDRESS": self._address,
            "ECHOMESH_EMBEDDINGS_THREADS": str(threads),
            "ECHOMESH_DATA_DIR": str(folder),
            "ECHOMESH_LOG_LEVEL": "error",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.embeddings"],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        until(self._is_serving, 60, "the service's start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _is_serving(self) -> bool:
        with grpc.insecure_channel(self._address) as channel:
            request = health_pb2.HealthCheckRequest()
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=1.0)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def embed(self, texts: Sequence[str]) -> None:
        """Embed all of them in requests of 32 (one each where there are too few for that)."""
        size = max(1, min(_REQUEST, len(texts) // self._clients))
        requests = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        asyncio.run(self._send(requests))

    async def _send(self, requests: list[list[str]]) -> None:
        settings = ServiceSettings(embeddings_target=f"ipv4:{self._address}")
        signer = AssertionSigner(_CALLER, load_private(self._trust, _CALLER), SystemClock())
        channels = ChannelFactory(settings, signer)
        stub = EmbeddingsServiceStub(channels.channel("embeddings"))
        waiting = iter(requests)

        async def caller() -> None:
            for texts in waiting:
                with deadline_scope(_CALL_S):
                    await stub.Embed(pb.EmbedRequest(texts=texts, priority=pb.PRIORITY_BULK))

        await asyncio.gather(*(caller() for _ in range(self._clients)))
        await channels.close()
