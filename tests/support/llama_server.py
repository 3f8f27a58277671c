"""llama.cpp's own OpenAI-compatible HTTP server, as a process of its own.

As a program it loads a GGUF file, prints its address, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

START_S = 120.0
# As much as our own worker has (services.models.engines.llamacpp): they are compared.
PROMPT_CACHE_MIB = 512


@dataclass
class LlamaServer:
    """The server; the port it first gets stays its own when it is started again.

    `context` is in tokens for each of its `slots`.
    """

    model: Path
    slots: int = 2
    context: int = 1024
    batch: int = 32
    threads: int = 1
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def root(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        """The base address to configure."""
        return f"{self.root}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()

    async def start(self) -> float:
        """Start it and return how many seconds it took until it answers."""
        began = time.monotonic()
        options = ("slots", "context", "batch", "threads", "port")
        told = [f"--{name}={getattr(self, name)}" for name in options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.llama_server", str(self.model), *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # As our workers have: the system shares the processors out among sessions.
            start_new_session=True,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, "llama.cpp's server ended before it was ready"
        self.port = int(line.rpartition(":")[2])
        return time.monotonic() - began

    async def kill(self) -> None:
        """End it at once, as kill -9 does."""
        process = self.process
        assert process is not None
        process.kill()
        await asyncio.to_thread(process.wait)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    async def running(self) -> int:
        """How many requests it works on."""
        async with httpx.AsyncClient(trust_env=False, timeout=START_S) as http:
            answer = await http.get(f"{self.root}/slots")
        return sum(slot["is_processing"] for slot in answer.raise_for_status().json())


def _params(given: argparse.Namespace) -> Any:
    from xllamacpp import CommonParams

    params = CommonParams()
    params.model.path = str(given.model)
    params.model_alias = {given.model.stem}
    params.n_ctx = given.context * given.slots
    params.n_parallel = given.slots
    params.n_batch = params.n_ubatch = given.batch
    if given.threads:
        params.cpuparams.n_threads = given.threads
    params.port = given.port
    params.endpoint_slots = True
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.ui = False
    params.verbosity = 0
    return params


def main() -> None:
    """Serve until standard input ends."""
    from xllamacpp import Server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    for name in ("slots", "context", "batch", "threads", "port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    server = Server(_params(parser.parse_args()))
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
