"""Start, write, and stop or kill `echomesh up`, again and again: nothing is lost, nothing is left.

    python -m tests.faults.cycles --count 100

Every other cycle ends by Ctrl-C, the rest by kill -9 of `up` alone, each while a client writes.
After each, every process, socket and lock of the mesh must be gone; at the next start everything
that was ever acknowledged must be there.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import echomesh
from echomesh import Client
from services.cli.plan import Layout
from tests.support.mesh import RunningMesh, running_mesh

# After a kill -9 the services and Postgres end by themselves, in order.
GONE_S = 45.0
# So many writes are acknowledged before the end comes in the middle of the next ones.
WRITES = 10
_POLL_S = 0.05


class CycleError(AssertionError):
    """A promise that did not hold."""


@dataclass(frozen=True)
class Left:
    """What a mesh holds while it runs, and must not leave: one description for each thing."""

    processes: tuple[str, ...]
    sockets: tuple[str, ...]
    locks: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether there is none of any kind."""
        return not (self.processes or self.sockets or self.locks)


@dataclass(frozen=True)
class Cycle:
    """One start and its end. Times in seconds; `acknowledged` counts all cycles so far."""

    number: int
    ended_by: str
    start_s: float
    end_s: float
    acknowledged: int


@dataclass
class Cycles:
    """Cycles on one data folder."""

    data: Path
    acknowledged: set[str] = field(default_factory=set)

    async def run(self, count: int, say: Callable[[str], None]) -> list[Cycle]:
        """Run `count` cycles, Ctrl-C and kill -9 in turn; raises CycleError."""
        done = []
        for number in range(1, count + 1):
            ended_by = "Ctrl-C" if number % 2 else "kill -9"
            cycle = await self._one(number, ended_by)
            say(
                f"cycle {cycle.number}: up in {cycle.start_s:.1f} s, {cycle.ended_by}, "
                f"nothing left after {cycle.end_s:.1f} s, {cycle.acknowledged} acknowledged"
            )
            done.append(cycle)
        with running_mesh(self.data) as mesh:
            await self._check_kept(mesh)
        return done

    async def _one(self, number: int, ended_by: str) -> Cycle:
        began = time.monotonic()
        with running_mesh(self.data) as mesh:
            start_s = time.monotonic() - began
            await self._check_kept(mesh)
            held = look(self.data)
            if not (held.processes and held.sockets and held.locks):
                raise CycleError(f"cycle {number}: a running mesh was not seen whole: {held}")
            async with self._writing(mesh):
                began = time.monotonic()
                mesh.process.send_signal(signal.SIGINT if ended_by == "Ctrl-C" else signal.SIGKILL)
                status = await asyncio.to_thread(mesh.process.wait, GONE_S)
        if ended_by == "Ctrl-C" and status != 0:
            raise CycleError(f"cycle {number}: up ended with status {status}")
        await wait_until_nothing_is_left(self.data, f"cycle {number}, {ended_by}")
        return Cycle(number, ended_by, start_s, time.monotonic() - began, len(self.acknowledged))

    async def _check_kept(self, mesh: RunningMesh) -> None:
        async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
            there = {memory.id async for memory in client.memories()}
        lost = self.acknowledged - there
        if lost:
            raise CycleError(f"{len(lost)} of {len(self.acknowledged)} acknowledged are lost")

    @asynccontextmanager
    async def _writing(self, mesh: RunningMesh) -> AsyncIterator[None]:
        """Write on and on until the mesh is gone; enter once some writes are acknowledged."""
        enough = asyncio.Event()
        writer = asyncio.create_task(self._write(mesh, enough))
        waiting = asyncio.create_task(enough.wait())
        try:
            await asyncio.wait({writer, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not enough.is_set():
                writer.result()
                raise CycleError("the mesh refused to store")
            yield
            await writer
        finally:
            writer.cancel()
            waiting.cancel()

    async def _write(self, mesh: RunningMesh, enough: asyncio.Event) -> None:
        begun = len(self.acknowledged)
        address, key = mesh.file.address, mesh.credentials.api_key
        async with Client(address, api_key=key, timeout_s=5) as client:
            while True:
                try:
                    text = f"Note {len(self.acknowledged)} lies in the drawer."
                    self.acknowledged.add((await client.remember(text)).id)
                except echomesh.EchomeshError:
                    return
                if len(self.acknowledged) - begun >= WRITES:
                    enough.set()


async def wait_until_nothing_is_left(data: Path, when: str) -> None:
    """Wait until no process, socket or lock of a data folder is there; raises CycleError."""
    ends = time.monotonic() + GONE_S
    while True:
        left = look(data)
        if left.nothing:
            return
        if time.monotonic() > ends:
            raise CycleError(f"{when}: left after {GONE_S:.0f} s: {left}")
        await asyncio.sleep(_POLL_S)


def look(data: Path) -> Left:
    """What there is of the mesh of a data folder on this machine."""
    return Left(tuple(_processes(data)), tuple(_sockets(data)), tuple(_locks(data)))


def _processes(data: Path) -> Iterator[str]:
    """Processes that name the folder in their arguments or settings, but not those that look."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = process.cmdline()
            if any(str(data) in word for word in (*command, *process.environ().values())):
                yield f"{process.pid} {' '.join(command)[:80]}"
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _sockets(data: Path) -> Iterator[str]:
    for folder in (data, *_short_folders(data)):
        for path in folder.rglob("*"):
            if path.is_socket():
                yield str(path)


def _short_folders(data: Path) -> Iterator[Path]:
    """Folders in the system's temporary folder where a deep data folder has its sockets."""
    for owner in (data, Layout(data).postgres):
        digest = hashlib.sha256(os.fsencode(owner.resolve())).hexdigest()[:12]
        yield from Path(tempfile.gettempdir()).glob(f"echomesh-*-{digest}")


def _locks(data: Path) -> Iterator[str]:
    """The folder's own lock if somebody holds it, and Postgres' files that mean "running"."""
    layout = Layout(data)
    with layout.lock.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield str(layout.lock)
    for folder in (layout.postgres, *_short_folders(data)):
        for path in (*folder.rglob("postmaster.pid"), *folder.rglob(".s.PGSQL.*.lock")):
            yield str(path)


def show(cycles: Sequence[Cycle]) -> Iterator[str]:
    """The figures, one line each."""
    for ended_by in sorted({cycle.ended_by for cycle in cycles}):
        chosen = [cycle for cycle in cycles if cycle.ended_by == ended_by]
        starts = [cycle.start_s for cycle in chosen]
        ends = [cycle.end_s for cycle in chosen]
        yield (
            f"{ended_by}: {len(chosen)} cycles, up in {statistics.median(starts):.1f} s "
            f"(at most {max(starts):.1f}), nothing left after {statistics.median(ends):.1f} s "
            f"(at most {max(ends):.1f})"
        )
    yield f"{cycles[-1].acknowledged} writes acknowledged, 0 lost; 0 processes, sockets, locks left"


def main() -> None:
    """Run the cycles that the command line asks for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.faults.cycles")
    parser.add_argument("--count", type=int, default=10, help="how many cycles (10)")
    count = parser.parse_args().count
    say: Callable[[str], None] = print
    with tempfile.TemporaryDirectory(prefix="echomesh-cycles-") as folder:
        done = asyncio.run(Cycles(Path(folder).resolve() / "data").run(count, say))
    for line in show(done):
        say(line)


if __name__ == "__main__":
    main()
