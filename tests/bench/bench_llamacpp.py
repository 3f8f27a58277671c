"""llama.cpp in our worker (gRPC over a unix socket) beside its own HTTP server, the same GGUF file.

Both have as many slots, threads and context, and the same requests in turn. The abort's time runs
from leaving the stream until the engine says that it is idle: ours in its heartbeat, the server in
its list of slots. After kill -9 our worker comes back by itself; the server is started by hand at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx

from echomesh.worker.v1.worker_pb2 import HeartbeatRequest
from echomesh.worker.v1.worker_pb2_grpc import WorkerServiceStub
from services.models.domain import Finish, Generation, Message, Role, Sampling, State
from services.models.engines.backend import EngineBackend
from services.models.engines.settings import LlamaCppModel
from services.runtime.deadline import deadline_scope
from services.runtime.process import private_folder
from tests.bench.engine_rounds import Plan, measure, times_of
from tests.bench.report import heading, note, table
from tests.support.gguf import small_model
from tests.support.llama_server import LlamaServer

OURS, THEIRS = "models' worker", "llama.cpp's server"
_CALL_S = 300.0
_POLL_S = 0.005


class Worker:
    """A GGUF file behind the models service's backend; its worker is a process of its own."""

    name = OURS

    def __init__(self, model: LlamaCppModel, folder: Path) -> None:
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

        async with asyncio.timeout(_CALL_S):
            while not ready():
                await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Stop it."""
        await self._backend.close()

    async def reply(self, prompt: str, tokens: int) -> AsyncGenerator[int, None]:
        """See `Contender.reply`."""
        sampling = Sampling(temperature=0, seed=1, max_tokens=tokens)
        request = Generation((Message(Role.USER, prompt),), sampling=sampling)
        (card,) = self._backend.models()
        with deadline_scope(_CALL_S):
            async for event in self._backend.generate(request, card):
                yield event.usage.completion_tokens if isinstance(event, Finish) else 0

    async def idle(self) -> bool:
        """Return whether no request is in flight."""
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


class HttpServer:
    """llama.cpp's own server, asked by httpx."""

    name = THEIRS

    def __init__(self, server: LlamaServer) -> None:
        self._server = server
        # The server closes used connections when it likes to: each request has one of its own.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=_CALL_S, limits=limits, trust_env=False)

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
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "seed": 1,
            "max_tokens": tokens,
        }
        address = f"{self._server.url}/chat/completions"
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
        """Return whether no slot works."""
        slots = (await self._http.get(f"{self._server.root}/slots")).json()
        return not any(slot["is_processing"] for slot in slots)

    def pid(self) -> int:
        """Return the server's process id."""
        assert self._server.process is not None
        return self._server.process.pid

    async def restart(self) -> float:
        """Kill the server and start it again."""
        began = time.perf_counter()
        await self._server.kill()
        await self._server.start()
        return time.perf_counter() - began


def main() -> None:
    """Measure both in turn and print them beside each other."""
    given = _arguments()
    heading("llamacpp")
    streams = [int(part) for part in given.streams.split(",")]
    plan = Plan(given.rounds, given.replies, given.tokens, given.aborts, streams, given.words)
    slots = max(streams)
    file = given.model or small_model()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"slots": slots, "threads": given.threads, "batch": given.batch}
        model = LlamaCppModel(path=file, context_length=given.context, **sizes)
        server = LlamaServer(file, context=given.context, **sizes)
        contenders = [Worker(model, Path(folder) / "w"), HttpServer(server)]
        figures = asyncio.run(measure(contenders, plan))
    ours, theirs = (times_of(figures[name]) for name in (OURS, THEIRS))
    rows = [[name, ours[name], theirs[name], f"{ours[name] / theirs[name]:.2f}x"] for name in ours]
    table(["", OURS, THEIRS, "ratio"], rows)
    note(
        f"{file.name}, {slots} slots, {given.threads} thread(s), context {given.context}; "
        f"{given.rounds} rounds of {given.replies} replies of {given.tokens} tokens a stream after "
        f"prompts of {given.words} words, and of {given.aborts} aborts."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamacpp", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; default: SmolLM2-135M-Instruct")
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--replies", type=int, default=8, help="of each stream in each round")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=60, help="of each prompt")
    parser.add_argument("--aborts", type=int, default=25, help="in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
