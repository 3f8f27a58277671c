"""Where a mesh's CPU goes: every service sampled by py-spy, summed up as text tables.

py-spy writes collapsed stacks ("a (file:1);b (file:2) 17"); each sample counts where it was
(the last frame) and towards the area that the innermost frame of a known package names.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench import processes
from tests.bench.peers.process import PEERS_BIN
from tests.bench.report import note, table
from tests.support.mesh import RunningMesh

RATE_HZ = 100
TOP = 14
_FRAME = re.compile(r"^(?P<function>.*?) \((?P<file>.*?)(?::(?P<line>\d+))?\)$")
# The first of these that an innermost-first walk of a stack meets names the sample's area.
AREAS = (
    ("grpc", ("grpc/", "grpc_", "cygrpc")),
    ("protobuf", ("google/protobuf", "_upb", "protovalidate")),
    ("postgres client", ("asyncpg",)),
    ("tracing and metrics", ("opentelemetry", "prometheus_client")),
    ("logging", ("structlog", "logging/")),
    ("numpy", ("numpy",)),
    ("inference", ("onnxruntime", "tokenizers")),
    ("index engine", ("qdrant_edge",)),
    ("tokens", ("jwt/", "cryptography")),
    ("product code", ("services/", "echomesh/")),
)
OTHER = "event loop and rest"
# Frames of every stack, which say nothing about where it was.
_FRAMING = ("__main__.py", "services/runtime/server.py", "services/runtime/worker.py")
# Where a native stack waits: py-spy cannot tell that it is idle.
_WAITING = (
    "PyThread_acquire_lock_timed",
    "epoll_wait",
    "epoll_pwait",
    "poll (",
    "wait4",
    "os_read",
)


class Profile:
    """Samples all services of a mesh while it is entered; `show` prints the tables after."""

    def __init__(self, mesh: RunningMesh, *, native: bool = False) -> None:
        self._mesh = mesh
        self._native = native
        self._folder = tempfile.TemporaryDirectory()
        self._samplers: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._cpu_before: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._stacks: dict[str, Counter[tuple[str, ...]]] = {}

    def __enter__(self) -> Self:
        for name, group in processes.by_service(self._mesh).items():
            if name in (processes.POSTGRES, processes.UP, "auth"):
                continue
            self._samplers[name] = [self._sample(name, process.pid) for process in group]
        self._cpu_before = processes.cpu_s(self._mesh)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spent = processes.spent_ms(self._cpu_before, processes.cpu_s(self._mesh), 1)
        for name, samplers in self._samplers.items():
            self._stacks[name] = Counter()
            for sampler in samplers:
                sampler.send_signal(signal.SIGINT)
                sampler.wait(60)
            for path in Path(self._folder.name).glob(f"{name}-*"):
                self._stacks[name] += collapsed(path.read_text().splitlines())
        self._folder.cleanup()

    def _sample(self, name: str, pid: int) -> subprocess.Popen[bytes]:
        out = Path(self._folder.name) / f"{name}-{pid}"
        command = [str(PEERS_BIN / "py-spy"), "record", "--pid", str(pid), "--rate", str(RATE_HZ)]
        command += ["--duration", "unlimited", "--format", "raw", "--output", str(out)]
        # Native stacks need the process stopped while they are read; the others do not.
        command.append("--native" if self._native else "--nonblocking")
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )

    def show(self, messages: int) -> None:
        """Print CPU by area for each service, and the functions that most samples were in."""
        areas = [name for name, _ in AREAS] + [OTHER]
        rows: list[list[object]] = []
        for name, stacks in self._stacks.items():
            each = self._spent[name] / messages
            shares = by_area(stacks)
            rows.append([name, f"{each:.2f}", *(f"{shares.get(area, 0):.0%}" for area in areas)])
        table(["service", "CPU ms per message (sampled)", *areas], rows)
        for name, stacks in self._stacks.items():
            note(f"**{name}**: the functions that samples were in, and below which they were")
            table(["own", "function", "with callees", "function "], _top(stacks))


def collapsed(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Stacks, outermost frame first, and how many samples each had."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if count.isdigit() and not any(mark in stack for mark in _WAITING):
            stacks[tuple(stack.split(";"))] += int(count)
    return stacks


def by_area(stacks: Counter[tuple[str, ...]]) -> dict[str, float]:
    """The share of samples by area, 0..1."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        found[_area(stack)] += count
    total = sum(found.values()) or 1
    return {area: count / total for area, count in found.items()}


def _area(stack: Sequence[str]) -> str:
    for frame in reversed(stack):
        if any(mark in frame for mark in _FRAMING):
            break
        for name, marks in AREAS:
            if any(mark in frame for mark in marks):
                return name
    return OTHER


def _top(stacks: Counter[tuple[str, ...]]) -> list[list[object]]:
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for stack, count in stacks.items():
        names = [_name(frame) for frame in stack]
        own[names[-1]] += count
        for name in set(names):
            below[name] += count
    total = sum(own.values()) or 1
    pairs = zip(own.most_common(TOP), below.most_common(TOP), strict=False)
    return [[f"{a[1] / total:.1%}", a[0], f"{b[1] / total:.1%}", b[0]] for a, b in pairs]


def _name(frame: str) -> str:
    found = _FRAME.match(frame)
    if found is None:
        return f"`{frame}`"
    path = found["file"].split("site-packages/")[-1]
    return f"`{found['function']}` {path}"
