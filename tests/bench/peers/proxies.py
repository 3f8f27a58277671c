"""Other proxies in front of the same upstream: LiteLLM's and SMG, from .proxies-venv."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parents[3]
BIN = _ROOT / ".proxies-venv" / "bin"
KEY = "sk-bench"
_START_S = 180.0


@dataclass(frozen=True)
class Proxy:
    """A running proxy and its own name of the model."""

    port: int
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """CPU seconds of it and its children."""
        own = psutil.Process(self.process.pid)
        used = 0.0
        for each in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                used += times.user + times.system
        return used


def installed() -> bool:
    """Whether they are there; `tests/bench/peers/install.sh proxies` installs them."""
    return (BIN / "litellm").exists()


@contextmanager
def litellm(folder: Path, port: int, upstream: str) -> Iterator[Proxy]:
    """LiteLLM's proxy with one worker, a master key and no database."""
    model = {"model": "openai/tiny", "api_base": upstream, "api_key": "none"}
    config = {
        "model_list": [{"model_name": "tiny", "litellm_params": model}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    command = ["litellm", "--config", str(path), "--port", str(port), "--host", "127.0.0.1"]
    with _running([*command, "--num_workers", "1"], folder, port, "/health/liveliness") as proxy:
        yield proxy


@contextmanager
def smg(folder: Path, port: int, upstream: str) -> Iterator[Proxy]:
    """SMG in front of an OpenAI-compatible server."""
    command = ["smg", "launch", "--backend", "openai", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", upstream.removesuffix("/v1"), "--api-key", KEY]
    command += ["--prometheus-port", str(port + 1), "--log-level", "error"]
    with _running(command, folder, port, "/health") as proxy:
        yield proxy


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int, health: str) -> Iterator[Proxy]:
    log = folder / f"{command[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LITELLM_LOG": "ERROR"},
        )
    try:
        _wait(process, port, health, log)
        yield Proxy(port, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, health: str, log: Path) -> None:
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", health)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"{log.name}: it did not start:\n{log.read_text()[-2000:]}")
