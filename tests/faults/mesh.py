"""Two replicas of every service as real processes on loopback, over one embedded Postgres.

    async with replica_mesh(tmp_path / "data") as mesh, mesh.client() as client:
        mesh.kill("routing", 0)                  # kill -9
        await client.reply("Hello?")             # the other one answers
        await mesh.restore()                     # all replicas up and healthy again

Nothing is restarted by itself: a test says what dies and what returns. Replicas find each other as
`ipv4:127.0.0.1:a,127.0.0.1:b`; the SDK is told both addresses of each public service. With the
edge index memory has one replica; given a Qdrant server (`ECHOMESH_MEMORY_QDRANT_URL` in the
environment of "memory") it has two.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from echomesh import Client
from services.cli.files import Credentials, read_credentials
from services.cli.health import Answer, ask_health
from services.cli.parts import bootstrap_auth, start_database, start_service
from services.cli.plan import CALLED, PUBLIC, Layout, Plan
from services.cli.stack import concerns
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.process import Child
from services.runtime.roles import MESH_DATABASE, RoleDsns
from services.runtime.trust import create_trust
from tests.support.mesh import BUILT_MODEL, free_port_base, metric

START_S = 120.0
# Longer than a drained stop takes.
STOP_S = 20.0
_POLL_S = 0.05
# The ports of the second replica lie between those of the first: five services, blocks of ten.
PORTS_APART = 5
_QDRANT_KEY = "ECHOMESH_MEMORY_QDRANT_URL"

Environments = Mapping[str, Mapping[str, str]]


@dataclass
class Replica:
    """One process of a service, and where it listens."""

    service: str
    index: int
    plan: Plan
    child: Child | None = None
    frozen: bool = False

    @property
    def name(self) -> str:
        """Such as `memory-0`; its log carries it."""
        return f"{self.service}-{self.index}"

    @property
    def mesh_address(self) -> str:
        """host:port for the other services."""
        return self.plan.address(self.service, "mesh")

    @property
    def public_address(self) -> str:
        """host:port for the SDK."""
        return self.plan.address(self.service, "public")

    @property
    def pid(self) -> int:
        """Process id; it is an error if the replica was never started."""
        assert self.child is not None, f"{self.name} was not started"
        return self.child.pid

    @property
    def running(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self.child is not None and self.child.returncode is None

    def send(self, signum: int) -> None:
        """Send a signal to the process alone, not to its workers."""
        os.kill(self.pid, signum)

    def process(self) -> psutil.Process:
        """The process."""
        return psutil.Process(self.pid)


class ReplicaMesh:
    """The processes of a mesh with replicas; made by `replica_mesh`."""

    def __init__(self, data: Path, environments: Environments, port_base: int = 0) -> None:
        self.layout = Layout(data)
        self.environments = {name: dict(environments.get(name, {})) for name in CALLED}
        self.postgres = EmbeddedPostgres(
            self.layout.postgres, log_file=self.layout.logs / "postgres.log"
        )
        base = port_base or free_port_base()
        self.replicas = {
            name: [
                Replica(name, index, Plan(self.layout, base + index * PORTS_APART))
                for index in range(self._count(name))
            ]
            for name in CALLED
        }
        self._dsns: Mapping[str, RoleDsns] = {}

    def _count(self, name: str) -> int:
        """The edge index has one owner, so without a Qdrant server memory has one replica."""
        return 1 if name == "memory" and _QDRANT_KEY not in self.environments[name] else 2

    # -- starting and stopping ------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything and wait until every replica says that it serves."""
        data = self.layout.data
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.layout.logs.mkdir(exist_ok=True)
        BUILT_MODEL.give(data)
        create_trust(self.layout.trust, CALLED)
        self._spawn(self.replicas["embeddings"][0])  # the first one builds the model
        self._dsns = await start_database(self.postgres, self.layout)
        await bootstrap_auth(self._environment(self.replicas["auth"][0]), self.layout.credentials)
        await self.wait_healthy(self.replicas["embeddings"][0])
        BUILT_MODEL.take(data)
        await self.restore()

    async def stop(self) -> None:
        """Stop everything, routing first and Postgres last."""
        for first in (True, False):
            replicas = [r for r in self.all() if (r.service == "routing") is first]
            children = [r.child for r in replicas if r.child is not None]
            await asyncio.gather(*(child.stop(grace_s=STOP_S) for child in children))
        await self.postgres.stop()

    async def restore(self) -> None:
        """Thaw what is frozen, start what is gone, and wait until all of it is healthy."""
        postgres = self.postgres_process()
        if postgres is None:
            await self.postgres.start()
        else:
            thaw_all(postgres)
        for replica in self.all():
            if replica.frozen:
                self.thaw(replica.service, replica.index)
            if not replica.running:
                self._spawn(replica)
        await asyncio.gather(*(self.wait_healthy(replica) for replica in self.all()))

    def all(self) -> list[Replica]:
        """Every replica."""
        return [replica for name in CALLED for replica in self.replicas[name]]

    def replica(self, service: str, index: int = 0) -> Replica:
        """One replica."""
        return self.replicas[service][index]

    def _spawn(self, replica: Replica) -> None:
        output = self.layout.logs / f"{replica.name}.out"
        replica.frozen = False
        replica.child = start_service(replica.service, self._environment(replica), output)

    def _environment(self, replica: Replica) -> dict[str, str]:
        service = replica.service
        inherited = {k: v for k, v in os.environ.items() if concerns(service, k)}
        return {
            **inherited,
            **replica.plan.environment(service, self._dsns),
            f"ECHOMESH_{service.upper()}_LOG_FILE": str(self.layout.logs / f"{replica.name}.log"),
            **self._targets(service),
            **self.environments[service],
        }

    def _targets(self, service: str) -> dict[str, str]:
        found = {f"ECHOMESH_{peer.upper()}_TARGET": self.target(peer) for peer in CALLED}
        if service == "routing":
            for peer in PUBLIC:
                found[f"ECHOMESH_ROUTING_{peer.upper()}_ENDPOINT"] = self.public(peer)
        return found

    def target(self, service: str) -> str:
        """The gRPC target of all replicas of a service."""
        return "ipv4:" + ",".join(r.mesh_address for r in self.replicas[service])

    def public(self, service: str) -> str:
        """The public addresses of all replicas, as the SDK takes them."""
        return ",".join(r.public_address for r in self.replicas[service])

    async def wait_healthy(self, replica: Replica, timeout_s: float = START_S) -> None:
        """Wait until a replica says that it serves."""
        ends = time.monotonic() + timeout_s
        while await ask_health(replica.mesh_address, 1.0) is not Answer.SERVING:
            assert replica.running, f"{replica.name} ended: {self.last_words(replica)}"
            assert time.monotonic() < ends, f"{replica.name} is not healthy: {self.layout.logs}"
            await asyncio.sleep(_POLL_S)

    def last_words(self, replica: Replica) -> str:
        """The end of what a replica wrote before its log was open."""
        return (self.layout.logs / f"{replica.name}.out").read_text(errors="replace")[-2000:]

    def log(self, service: str, index: int = 0) -> str:
        """The log of a replica, JSON lines."""
        path = self.layout.logs / f"{self.replica(service, index).name}.log"
        return path.read_text() if path.exists() else ""

    async def run(self, service: str, *arguments: str) -> str:
        """What an operator's command of a service says, such as `reconcile` of memory."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"services.{service}",
            *arguments,
            env=self._environment(self.replica(service)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), START_S)
        return said.decode()

    # -- faults ---------------------------------------------------------------------------------

    def kill(self, service: str, index: int = 0) -> None:
        """Kill -9."""
        self.replica(service, index).send(signal.SIGKILL)

    def freeze(self, service: str, index: int = 0) -> None:
        """SIGSTOP: the process keeps its connections and answers nothing."""
        replica = self.replica(service, index)
        replica.send(signal.SIGSTOP)
        replica.frozen = True

    def thaw(self, service: str, index: int = 0) -> None:
        """SIGCONT."""
        replica = self.replica(service, index)
        if replica.running:
            replica.send(signal.SIGCONT)
        replica.frozen = False

    async def terminate(self, service: str, index: int = 0) -> int:
        """SIGTERM, and the status that the replica ends with once it has drained."""
        replica = self.replica(service, index)
        replica.send(signal.SIGTERM)
        return await self.gone(service, index)

    async def gone(self, service: str, index: int = 0) -> int:
        """Wait for the end of a replica; its status."""
        child = self.replica(service, index).child
        assert child is not None
        return await asyncio.wait_for(child.wait(), STOP_S)

    async def restart(
        self, service: str, index: int = 0, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a replica (killed first if it runs), with more in its environment if given."""
        replica = self.replica(service, index)
        if replica.running:
            self.kill(service, index)
            await self.gone(service, index)
        self.environments[service].update(environment or {})
        self._spawn(replica)
        await self.wait_healthy(replica)

    def postgres_process(self) -> psutil.Process | None:
        """The postmaster, if it is there."""
        try:
            process = psutil.Process(self.postgres.postmaster_pid)
            return process if process.status() != psutil.STATUS_ZOMBIE else None
        except (RuntimeError, ValueError, psutil.NoSuchProcess):
            return None

    async def kill_postgres(self) -> None:
        """Kill -9 of the postmaster, and a new one."""
        process = self.postgres_process()
        assert process is not None, "postgres is not running"
        process.kill()
        await self.postgres.wait()
        await self.postgres.start()

    # -- looking in -----------------------------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """The first user's key: roles user, app and admin."""
        return read_credentials(self.layout.data)

    def client(self, timeout_s: float = 20.0) -> Client:
        """An SDK client that knows every routing replica."""
        return Client(self.public("routing"), api_key=self.credentials.api_key, timeout_s=timeout_s)

    async def sql(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of a query as the superuser, whom row-level security does not bind."""
        dsn = self.postgres.dsn("postgres", MESH_DATABASE)
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            return await connection.fetch(query, *arguments)  # type: ignore[no-any-return]
        finally:
            await connection.close(timeout=5)

    async def metric(self, service: str, index: int, name: str) -> float:
        """The sum of a metric of a replica, over its labels."""
        address = self.replica(service, index).plan.address(service, "metrics")
        return await asyncio.to_thread(metric, address, name)

    def workers(self, service: str, index: int = 0) -> list[psutil.Process]:
        """The processes below a replica, such as memory's index worker."""
        return self.replica(service, index).process().children(recursive=True)


def thaw_all(process: psutil.Process) -> None:
    """SIGCONT to a process and all below it."""
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # a short-lived one of Postgres, such as autovacuum's
            one.send_signal(signal.SIGCONT)


@asynccontextmanager
async def replica_mesh(
    data: Path, environments: Environments | None = None, port_base: int = 0
) -> AsyncIterator[ReplicaMesh]:
    """A running mesh with replicas; `environments` adds settings by service."""
    mesh = ReplicaMesh(data.resolve(), environments or {}, port_base)
    try:
        await mesh.start()
        yield mesh
    finally:
        await mesh.stop()
