"""A peer as a process of .bench-venv: requests and answers are lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

_ROOT = Path(__file__).resolve().parents[3]
PEERS_BIN = _ROOT / ".bench-venv" / "bin"
# No peer may reach for a model hub or send usage figures.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MEM0_TELEMETRY": "False",
    "POSTHOG_DISABLED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def installed() -> bool:
    """Whether the peers' environment is there."""
    return (PEERS_BIN / "python").exists()


def require() -> None:
    """End in one line if the peers are not installed."""
    if not installed():
        raise SystemExit("the peers are not installed: run tests/bench/peers/install.sh")


class Peer:
    """A running peer script; `ask` sends one request and waits for its answer."""

    def __init__(self, script: str, *arguments: str) -> None:
        path = Path(__file__).with_name(script)
        self._process = subprocess.Popen(
            [PEERS_BIN / "python", path, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_QUIET},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to `request`; RuntimeError if the peer ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)
