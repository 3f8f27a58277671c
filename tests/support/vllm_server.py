"""vLLM's own OpenAI-compatible HTTP server, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from services.models.engines.settings import VllmModel
from services.models.engines.vllm.arguments import engine_arguments, environment

START_S = 300.0
MODEL = "tiny"
"""What it calls its model."""
_RUNNING, _GENERATED = "vllm:num_requests_running{", "vllm:generation_tokens_total{"
_TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser=hermes")


class VllmServer:
    """The server, with the settings of a model of ours.

    Args:
        model: what to serve.
        stream_interval: tokens in a piece of a reply; its own default is 1.
        folder: a folder for what its package on a CPU lacks: it asks for the version of a
            distribution of another name.

    """

    def __init__(self, model: VllmModel, folder: Path, stream_interval: int = 1) -> None:
        self._model = model.model_copy(update={"stream_interval": stream_interval})
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.root = ""
        _name_distribution(folder)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> float:
        """Start it and return the seconds until it answers."""
        began = time.monotonic()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        arguments = engine_arguments(self._model, cpu=True)
        # The server has figures only if it keeps them, as it does unless told otherwise.
        del arguments["disable_log_stats"]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--port={port}"]
        self._process = subprocess.Popen(
            [*command, f"--served-model-name={MODEL}", *_TOOLS, *_options(arguments)],
            env={**os.environ, **environment(self._model), "PYTHONPATH": str(self._folder)},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(START_S), _client() as http:
            while not await self._answers(http):
                assert self._process.poll() is None, "vLLM's server ended before it was ready"
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def _answers(self, http: httpx.AsyncClient) -> bool:
        try:
            return (await http.get(f"{self.root}/health")).is_success
        except httpx.TransportError:
            return False

    async def kill(self) -> None:
        """End it and its engine core at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)

    async def running(self) -> int:
        """How many requests its engine works on."""
        return await self._figure(_RUNNING)

    async def generated(self) -> int:
        """How many tokens its engine has made since it started."""
        return await self._figure(_GENERATED)

    async def _figure(self, name: str) -> int:
        async with _client() as http:
            lines = (await http.get(f"{self.root}/metrics")).text.splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(name))


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=START_S)


def _options(arguments: dict[str, object]) -> list[str]:
    """Engine arguments as the options of a command line."""
    options = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, dict):
            options.append(f"--{option}={json.dumps(value)}")
        elif isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
        else:
            options.append(f"--{option}={value}")
    return options


def _name_distribution(folder: Path) -> None:
    described = folder / "vllm-0.32.0+cpu.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    lines = ("Metadata-Version: 2.1", "Name: vllm", "Version: 0.32.0+cpu", "")
    (described / "METADATA").write_text("\n".join(lines))
