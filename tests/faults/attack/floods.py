"""Connections that cost the server more than the client: half requests, silence, resets.

    python -m tests.faults.attack.floods [--idle 5000]

starts a mesh of its own, attacks its public listeners in each way, and prints how long health took
to answer meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from echomesh import Client
from echomesh._session import Deadline
from echomesh.routing.v1 import chat_pb2
from services.runtime.settings import local_address
from tests.faults.attack.wire import PREFACE, RawClient, connect
from tests.support.mesh import RunningMesh, running_mesh, until

SERVICES = ("auth", "memory", "routing")
CHAT = "/echomesh.routing.v1.ChatService/Chat"
WATCH = "/grpc.health.v1.Health/Watch"
_KEPT_FDS = 500
"""For pytest, channels and pipes: the rest of the limit may be connections."""


@dataclass
class Health:
    """Answer times of each service's health check, in seconds, and the checks that failed."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile, in milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    def __str__(self) -> str:
        middle = 1000 * statistics.median(self.seconds)
        worst = 1000 * max(self.seconds)
        return (
            f"health p50 {middle:.1f} ms, p99 {self.p99_ms:.1f} ms, worst {worst:.1f} ms, "
            f"{len(self.seconds)} answers, {len(self.failed)} failures"
        )


@contextmanager
def watched(mesh: RunningMesh) -> Iterator[Health]:
    """Ask every public listener for its health in turn until the block ends."""
    health, ended = Health(), threading.Event()

    def ask() -> None:
        with ExitStack() as stack:
            stubs = []
            for name in SERVICES:
                channel = grpc.insecure_channel(local_address(name, "public", mesh.port_base))
                stack.callback(channel.close)
                stubs.append((name, health_pb2_grpc.HealthStub(channel)))
            while not ended.wait(0.02):
                for name, stub in stubs:
                    _ask_once(health, name, stub)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield health
    finally:
        ended.set()
        thread.join()


def _ask_once(health: Health, name: str, stub: health_pb2_grpc.HealthStub) -> None:
    started = time.monotonic()
    try:
        stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)
    except grpc.RpcError as error:
        health.failed.append(f"{name}: {error}")
    else:
        health.seconds.append(time.monotonic() - started)


def more_files(wanted: int) -> int:
    """Raise this process's limit of open files as far as allowed; return how many may be open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = min(hard, wanted + _KEPT_FDS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1024), hard))
    return min(wanted, soft - _KEPT_FDS)


def addresses(mesh: RunningMesh) -> list[str]:
    """The public listeners."""
    return [local_address(name, "public", mesh.port_base) for name in SERVICES]


def slowloris(mesh: RunningMesh, connections: int, seconds: float) -> None:
    """Send a preface and a HEADERS frame byte by byte and never the end of it."""
    endless = (
        PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x40\x00\x01\x04\x00\x00\x00\x01"
    )
    opened = [connect(address) for address in addresses(mesh) for _ in range(connections)]
    ends = time.monotonic() + seconds
    place = 0
    while time.monotonic() < ends and place < len(endless):
        for connection in opened:
            with suppress(OSError):
                connection.send(endless[place : place + 1])
        place += 1
        time.sleep(seconds / len(endless))
    for connection in opened:
        connection.close()


def idle(mesh: RunningMesh, connections: int, seconds: float) -> int:
    """Open connections and say nothing on them; return how many were open at once."""
    opened = []
    for number in range(connections):
        with suppress(OSError):
            opened.append(connect(addresses(mesh)[number % len(SERVICES)]))
    time.sleep(seconds)
    for connection in opened:
        connection.close()
    return len(opened)


def resets(mesh: RunningMesh, streams: int) -> None:
    """Begin calls and cancel them at once, thousands on one connection (CVE-2023-44487)."""
    for address in addresses(mesh):
        client = RawClient(address)
        for _ in range(streams):
            try:
                client.reset(client.request("/echomesh.auth.v1.AuthService/GetJwks", body=None))
            except OSError:
                # The server had enough of this connection: that is a defence, not a fault.
                client.close()
                client = RawClient(address)
        client.close()


def unread(mesh: RunningMesh, streams: int, seconds: float, token: str) -> None:
    """Open streams, of health and of chat, and let the server send no byte on them.

    Every tenth chat has its message, so that its whole reply waits to be read.
    """
    clients = [RawClient(address, window=0) for address in addresses(mesh)]
    bearer = [(b"authorization", f"Bearer {token}".encode())]
    for number in range(streams):
        for client in clients:
            with suppress(OSError):
                client.request(WATCH, body=b"" if number % 2 else None)
        with suppress(OSError):
            clients[-1].request(CHAT, bearer, body=None if number % 10 else _chat_request(number))
    time.sleep(seconds)
    for client in clients:
        client.close()


def _chat_request(number: int) -> bytes:
    request = chat_pb2.ChatRequest(
        request_id=f"unread-{number}", conversation_id="unread", text="What did I say?"
    )
    return request.SerializeToString()


def open_fds(mesh: RunningMesh) -> dict[str, int]:
    """How many files and sockets each public service has open."""
    return {name: mesh.service(name).num_fds() for name in SERVICES}


def settled(mesh: RunningMesh, before: dict[str, int]) -> bool:
    """Whether no service holds more than a few files above what it had before."""
    return all(now <= before[name] + 10 for name, now in open_fds(mesh).items())


def attacks(
    mesh: RunningMesh, idle_connections: int, token: str
) -> dict[str, Callable[[], object]]:
    """Each way to attack, by name."""
    return {
        "slowloris": lambda: slowloris(mesh, 100, 6.0),
        "resets": lambda: resets(mesh, 3_000),
        "unread": lambda: unread(mesh, 300, 3.0, token),
        "idle": lambda: idle(mesh, idle_connections, 3.0),
    }


async def token_of(mesh: RunningMesh) -> str:
    """A good token of the first user."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        return str(await client._tokens.access_token(Deadline(10)))


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Attack the listeners of a mesh.")
    parser.add_argument("--idle", type=int, default=5_000)
    idle_connections = more_files(parser.parse_args().idle)
    failures = 0
    with tempfile.TemporaryDirectory() as folder, running_mesh(Path(folder) / "data") as mesh:
        token = asyncio.run(token_of(mesh))
        before = open_fds(mesh)
        for name, attack in attacks(mesh, idle_connections, token).items():
            with watched(mesh) as health:
                outcome = attack()
            until(lambda: settled(mesh, before), 60, f"the end of {name}")
            print(f"{name}: {health}", "" if outcome is None else f"({outcome} open)")  # noqa: T201
            failures += len(health.failed)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
