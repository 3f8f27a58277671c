"""A real mesh for the tests, with a scripted OpenAI-compatible server as its language model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.openai_double import DONE, USAGE, Answer, OpenAIDouble, delta, finish, reply

ROOT = Path(__file__).resolve().parents[2]
# The mesh runs as its users install it, in the environment of the product.
ECHOMESH = ROOT / ".venv" / "bin" / "echomesh"
START_S = 180.0
_PORTS = 50


@dataclass(frozen=True)
class Gateway:
    """A running gateway: its address and a key whose role is app, and what its model was asked."""

    url: str
    key: str
    model: OpenAIDouble

    @property
    def base_url(self) -> str:
        """What OpenAI's clients are given."""
        return f"{self.url}/v1"


class ScriptedModel(OpenAIDouble):
    """Calls the first tool until its result is there; JSON where a form is asked for."""

    def _next_answer(self) -> Answer:
        asked = self.requests[-1]
        if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
            return _call(asked["tools"][0]["function"])
        if asked.get("response_format"):
            return reply('{"city": "Lima", ', '"warm": true}')
        return reply("Hello", " there")


def _call(function: dict[str, Any]) -> Answer:
    arguments = json.dumps({name: _example(name) for name in function["parameters"]["properties"]})
    call = {"index": 0, "id": "call-1", "type": "function"}
    named = {**call, "function": {"name": function["name"], "arguments": arguments}}
    return Answer([delta("", tool_calls=[named]), finish("tool_calls"), USAGE, DONE])


def _example(name: str) -> Any:
    return {"city": "Lima", "warm": True}.get(name, 1)


@contextmanager
def scripted_model(model: OpenAIDouble | None = None) -> Iterator[OpenAIDouble]:
    """Serve a model, the one above unless another is given, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    model = model or ScriptedModel()
    asyncio.run_coroutine_threadsafe(model.start(), loop).result(30)
    try:
        yield model
    finally:
        asyncio.run_coroutine_threadsafe(model.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)


@contextmanager
def running_mesh(data: Path, model_url: str) -> Iterator[str]:
    log = data.parent / "up.log"
    command = [str(ECHOMESH), "up", "--data", str(data), "--port-base", str(_free_ports())]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--openai-url", model_url, "--openai-model", "tiny"],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    try:
        yield _address(data / "mesh.json", process, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _address(mesh_file: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        if mesh_file.exists():
            return str(json.loads(mesh_file.read_text())["http"])
        time.sleep(0.1)
    raise AssertionError(f"the mesh did not start:\n{log.read_text()[-3000:]}")


def _free_ports() -> int:
    """The first of a block of ports that nobody listens on."""
    for base in range(20_000 + os.getpid() % 100 * 100, 32_000, _PORTS):
        if all(_is_free(base + offset) for offset in range(_PORTS)):
            return base
    raise AssertionError("no free block of ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
