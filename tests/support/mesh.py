"""The mesh as processes: `echomesh up` on free ports with a data folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from services.cli.files import Credentials, MeshFile, read_credentials, read_mesh
from services.cli.plan import FORMAT
from services.embeddings.model_folder import ensure_built

# Each listener kind has a block of ten ports, and Postgres one more block.
_PORTS = 50
# Below those that Linux gives to outgoing connections.
_BLOCKS = range(20_000, 32_700, _PORTS)
START_S = 120.0
STOP_S = 30.0


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll a condition until it is true and return its value; it is an error if it never is."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {timeout_s:.0f} s")


def free_port_base() -> int:
    """The first of a block of ports that nobody listens on; each process begins elsewhere."""
    # Far apart also for processes that were started together.
    first = os.getpid() * 37 % len(_BLOCKS)
    for base in chain(_BLOCKS[first:], _BLOCKS[:first]):
        if all(_is_free(base + offset) for offset in range(_PORTS)):
            return base
    raise AssertionError("no free block of ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@dataclass
class RunningMesh:
    """A mesh and the process of its `echomesh up`."""

    data: Path
    port_base: int
    process: subprocess.Popen[str]
    log: Path

    @property
    def file(self) -> MeshFile:
        """Where its services listen."""
        return read_mesh(self.data)

    @property
    def credentials(self) -> Credentials:
        """Its first user's key."""
        return read_credentials(self.data)

    def children(self) -> list[psutil.Process]:
        """Every process below `echomesh up`."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def service(self, name: str) -> psutil.Process:
        """The process of one service."""
        for process in self.children():
            if f"services.{name}" in process.cmdline():
                return process
        raise AssertionError(f"{name} is not running")

    def stop(self) -> int:
        """Ctrl-C, and the status it ends with."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)


def echomesh(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command of `echomesh` to its end."""
    command = [sys.executable, "-m", "services.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


class BuiltModel:
    """The embedding model that the first mesh of this run built, for the others to start from."""

    folder: Path | None = None

    def build(self, folder: Path) -> None:
        """Build it here and now, unless there is one: for a mesh that could not do so itself."""
        if self.folder is None:
            ensure_built(None, folder)
            self.folder = folder

    def give(self, data: Path) -> None:
        """Put it into a new data folder."""
        wanted = data / "embeddings" / "models"
        if self.folder is not None and self.folder.is_dir() and not wanted.exists():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.folder, wanted)
            # A data folder is known by its format; without it the folder would hold something else.
            (data / "format").write_text(f"{FORMAT}\n")

    def take(self, data: Path) -> None:
        """Remember where a running mesh has it."""
        if self.folder is None:
            self.folder = data / "embeddings" / "models"


BUILT_MODEL = BuiltModel()


def metric(address: str, name: str, having: str = "") -> float:
    """The sum of a metric over its labels, or over those that contain a text; 0 without any."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    chosen = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in chosen if having in line)


@contextmanager
def running_mesh(
    data: Path, *extra: str, env: dict[str, str] | None = None, port_base: int | None = None
) -> Iterator[RunningMesh]:
    """Start a mesh, wait until it is up, and stop it at the end."""
    base = port_base or free_port_base()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    BUILT_MODEL.give(data)
    log = data.parent / f"{data.name}.up.log"
    command = [sys.executable, "-m", "services.cli", "up", "--data", str(data)]
    with log.open("a") as out:
        process = subprocess.Popen(
            [*command, "--port-base", str(base), *extra],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(env or {})},
        )
    mesh = RunningMesh(data, base, process, log)
    try:
        until(lambda: is_up(mesh), START_S, f"the mesh's start ({log})")
        BUILT_MODEL.take(data)
        yield mesh
    finally:
        try:
            if process.poll() is None:
                mesh.stop()
        finally:
            process.kill()  # what it started ends by itself then
            process.wait()


def is_up(mesh: RunningMesh) -> bool:
    """Whether `up` has said where everything is."""
    if mesh.process.poll() is not None:
        raise AssertionError(f"echomesh up ended:\n{mesh.log.read_text()[-3000:]}")
    path = mesh.data / "mesh.json"
    return path.exists() and json.loads(path.read_text()).get("pid") == mesh.process.pid
