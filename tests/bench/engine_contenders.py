"""The two ways to an engine that are compared: our worker (gRPC), and an HTTP server of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

import httpx

from echomesh.worker.v1.worker_pb2 import HeartbeatRequest
from echomesh.worker.v1.worker_pb2_grpc import WorkerServiceStub
from services.models.domain import Finish, Generation, Message, Role, Sampling, State
from services.models.engines.backend import EngineBackend
from services.models.engines.settings import EngineModel
from services.runtime.deadline import deadline_scope
from services.runtime.process import private_folder

OURS = "models' worker"
CALL_S = 300.0
_POLL_S = 0.005


def asked(prompt: str, tokens: int) -> Generation:
    """Return a request for a reply that is the same each time."""
    sampling = Sampling(temperature=0, seed=1, max_tokens=tokens)
    return Generation((Message(Role.USER, prompt),), sampling=sampling)


class Worker:
    """A model behind the models service's backend; its worker is a process of its own."""

    name = OURS

    def __init__(self, model: EngineModel, folder: Path) -> None:
        self._backend = EngineBackend(model, private_folder(folder))

    async def start(self) -> float:
        """Start it and return the seconds until it is ready."""
        began = time.perf_counter()
        await self._backend.start()
        await self._ready(0)
        return time.perf_counter() - began

    async def _ready(self, other_than: int) -> None:
        def ready() -> bool:
            (card,) = self._backend.models()
            return card.state is State.READY and self._backend.worker_pid != other_than

        async with asyncio.timeout(CALL_S):
            while not ready():
                await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Stop it."""
        await self._backend.close()

    async def reply(self, prompt: str, tokens: int) -> AsyncGenerator[int, None]:
        """See `Contender.reply`."""
        (card,) = self._backend.models()
        with deadline_scope(CALL_S):
            async for event in self._backend.generate(asked(prompt, tokens), card):
                yield event.usage.completion_tokens if isinstance(event, Finish) else 0

    async def idle(self) -> bool:
        """Return whether the engine works on nothing and its worker on no request."""
        if (await self._backend.load()).running:
            return False
        # The service itself has no use for this channel beyond its own calls.
        stub = WorkerServiceStub(self._backend._worker.channel())
        return not (await stub.Heartbeat(HeartbeatRequest())).requests_in_flight

    def pid(self) -> int:
        """Return the worker's process id."""
        return self._backend.worker_pid or 0

    async def restart(self) -> float:
        """Kill the worker; the supervisor starts another."""
        began, old = time.perf_counter(), self.pid()
        os.kill(old, signal.SIGKILL)
        await self._ready(old)
        return time.perf_counter() - began


class Server(Protocol):
    """An OpenAI-compatible server, as a process of its own."""

    @property
    def root(self) -> str:
        """Its address, without a path."""
        ...

    @property
    def pid(self) -> int:
        """Process id of the server."""
        ...

    async def start(self) -> float:
        """Start it and return the seconds until it answers."""
        ...

    async def kill(self) -> None:
        """End it at once."""
        ...

    async def running(self) -> int:
        """How many requests its engine works on."""
        ...


class HttpServer:
    """An engine's own server, asked by httpx.

    Args:
        name: the column's.
        server: the server; not yet started.
        model: what the server calls its model.

    """

    def __init__(self, name: str, server: Server, model: str) -> None:
        self.name = name
        self._server = server
        self._model = model
        # Such servers close used connections when they like to: each request has one of its own.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=CALL_S, limits=limits, trust_env=False)

    async def start(self) -> float:
        """Start it and return the seconds until it is ready."""
        return await self._server.start()

    async def stop(self) -> None:
        """Stop it."""
        await self._http.aclose()
        await self._server.kill()

    async def reply(self, prompt: str, tokens: int) -> AsyncGenerator[int, None]:
        """See `Contender.reply`."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "seed": 1,
            "max_tokens": tokens,
        }
        address = f"{self._server.root}/v1/chat/completions"
        async with self._http.stream("POST", address, json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    piece = json.loads(line[6:])
                    if piece["choices"] and piece["choices"][0]["delta"].get("content"):
                        yield 0
                    if usage := piece.get("usage"):
                        yield usage["completion_tokens"]

    async def idle(self) -> bool:
        """Return whether the engine works on nothing."""
        return not await self._server.running()

    def pid(self) -> int:
        """Return the server's process id."""
        return self._server.pid

    async def restart(self) -> float:
        """Kill the server and start it again."""
        began = time.perf_counter()
        await self._server.kill()
        await self._server.start()
        return time.perf_counter() - began
