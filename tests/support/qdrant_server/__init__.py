"""A small Qdrant server for tests: Qdrant's gRPC protocol over the edge engine, in one process.

Several memory replicas can share it, and it can be killed, frozen, cut off and slowed down. It
knows the calls that :class:`services.memory.index.qdrant.QdrantIndex` makes and refuses the rest.

    with running_qdrant(tmp_path / "qdrant") as qdrant:
        index = QdrantIndex(qdrant_client(qdrant.url), "memories", 384)
        qdrant.kill(); qdrant.start()          # same port, same points
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_S = 120.0
STOP_S = 20.0
REPOSITORY = Path(__file__).parents[3]


@dataclass
class QdrantProcess:
    """The server's process; it can end and start again on the same port and folder."""

    folder: Path
    port: int
    api_key: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """What memory's setting ``qdrant_url`` is to be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers calls."""
        module = ["-m", "tests.support.qdrant_server", "--parent-pipe"]
        place = ["--folder", str(self.folder), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, *module, *place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, "QDRANT__SERVICE__API_KEY": self.api_key},
            start_new_session=True,
        )
        _wait_for_ready_line(self._process)

    def kill(self) -> None:
        """Kill it with -9 and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signum: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signum)
        process.send_signal(signal.SIGCONT)
        process.wait(STOP_S)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def running_qdrant(folder: Path, *, port: int = 0, api_key: str = "") -> Iterator[QdrantProcess]:
    """Run a server over ``folder`` on a free port (or ``port``); it ends with the block."""
    server = QdrantProcess(folder, port or _free_port(), api_key)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _wait_for_ready_line(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ends = time.monotonic() + START_S
        while not selector.select(max(0.0, ends - time.monotonic())):
            if time.monotonic() >= ends:
                process.kill()
                raise AssertionError(f"the Qdrant server did not start within {START_S:.0f} s")
    line = process.stdout.readline().decode()
    if not line.startswith("ready "):
        raise AssertionError(f"the Qdrant server ended with {process.wait(STOP_S)}: {line!r}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
