"""A local mesh as processes: started in order, watched, restarted, stopped in order."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.files import CommandError, MeshFile, write_json
from services.cli.plan import SERVICES, WITH_DATABASE, Plan
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.external import ExternalPostgres
from services.runtime.migrate import MigrationError, migrate_service
from services.runtime.pgbinaries import PostgresUnavailable
from services.runtime.process import Child, spawn
from services.runtime.roles import RoleDsns
from services.runtime.trust import create_trust

# A part that crashes more often than this in a minute is left down, and said to be.
MAX_RESTARTS = 5
_RESTART_WINDOW_S = 60.0
_RESTART_PAUSE_S = 0.5
_START_S = 90.0
_STOP_S = 12.0
_POLL_S = 0.1
# Postgres that gives no answer for so long is frozen, and is killed to be started anew.
_POSTGRES_ANSWER_S = 4.0
_POSTGRES_CHECK_S = 2.0
_POSTGRES_MISSES = 2
# The setting that names a server of the user's own.
POSTGRES_URL_KEY = "ECHOMESH_POSTGRES_URL"
_SERVICES_FOLDER = Path(__file__).resolve().parents[1]

Say = Callable[[str], None]


@dataclass
class Restarts:
    """Counts the restarts of one part within the last minute."""

    times: deque[float] = field(default_factory=deque)

    def allowed(self, now: float) -> bool:
        """Whether another restart is within bounds; counts it if so."""
        while self.times and now - self.times[0] > _RESTART_WINDOW_S:
            self.times.popleft()
        if len(self.times) >= MAX_RESTARTS:
            return False
        self.times.append(now)
        return True


class Stack:
    """The running parts of a plan. `start` then `stop`, each once."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._postgres = _postgres(plan)
        self._dsns: Mapping[str, RoleDsns] = {}
        self._children: dict[str, Child] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Bring everything up; raises CommandError in one line, with nothing left running."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            self._create_trust()
            self._start_services("embeddings", "models")  # these need no database
            await self._start_postgres()
            self._say("postgres is up")
            self._start_services("memory", "routing")
            await self._prepare_auth()
            self._start_services("auth")
            await asyncio.gather(*(self._wait_healthy(name) for name in SERVICES))
            self._write_mesh_file()
            self._watch()
            undo.pop_all()

    async def stop(self) -> None:
        """Routing first, Postgres last, so that nothing that was acknowledged is lost."""
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        self._plan.layout.mesh_file.unlink(missing_ok=True)
        try:
            await self._stop_services("routing")
            await self._stop_services(*(name for name in SERVICES if name != "routing"))
        finally:
            await self._postgres.stop()

    async def _stop_services(self, *names: str) -> None:
        children = [self._children[name] for name in names if name in self._children]
        await asyncio.gather(*(child.stop(grace_s=_STOP_S) for child in children))

    async def _start_postgres(self) -> None:
        try:
            await self._postgres.start()
            self._dsns = await self._postgres.provision(WITH_DATABASE)
            for name in WITH_DATABASE:
                folder = _SERVICES_FOLDER / name / "migrations"
                await migrate_service(name, self._dsns[name].owner, folder)
        except (PostgresUnavailable, MigrationError, TimeoutError) as error:
            raise CommandError(str(error) or "PostgreSQL did not start in time") from None
        except ValueError as error:
            folder = self._plan.layout.postgres
            raise CommandError(f"{folder} is broken: restore it from a backup ({error})") from None

    def _create_trust(self) -> None:
        folder = self._plan.layout.trust
        try:
            create_trust(folder, SERVICES)
        except ValueError:
            # Services know each other by these keys alone, so new ones lose nothing.
            raise CommandError(f"{folder} holds a broken key: move the folder away") from None

    async def _prepare_auth(self) -> None:
        """Let auth make the first tenant, user and keys; it does so once for a folder."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.auth",
            "bootstrap",
            "--output",
            str(self._plan.layout.credentials),
            env=self._environment("auth"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), _START_S)
        except TimeoutError:
            raise CommandError("auth could not be prepared in time: see postgres.log") from None
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise CommandError(f"auth could not be prepared: {lines[-1]}")

    def _environment(self, name: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if concerns(name, k)}
        return {**inherited, **self._plan.environment(name, self._dsns)}

    def _start_services(self, *names: str) -> None:
        for name in names:
            self._start_service(name)

    def _start_service(self, name: str) -> None:
        # What a process says before its log is open; a new start begins the file anew.
        with (self._plan.layout.logs / f"{name}.out").open("wb") as output:
            self._children[name] = spawn(
                [sys.executable, "-m", f"services.{name}"],
                env=self._environment(name),
                output=output,
            )

    async def _wait_healthy(self, name: str) -> None:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            child = self._children[name]
            if child.returncode is not None:
                raise CommandError(f"{name} did not start: {self._last_words(name)}")
            if await is_serving(self._plan.address(name, "mesh")):
                self._say(f"{name} is up")
                return
            await asyncio.sleep(_POLL_S)
        raise CommandError(f"{name} did not start within {_START_S:.0f} s: see its log")

    def _last_words(self, name: str) -> str:
        text = (self._plan.layout.logs / f"{name}.out").read_text(errors="replace")
        lines = text.strip().splitlines()
        return lines[-1] if lines else f"see {self._plan.layout.logs / f'{name}.log'}"

    def _write_mesh_file(self) -> None:
        plan = self._plan
        content = MeshFile(
            address=plan.address("routing", "public"),
            services={name: plan.address(name, "mesh") for name in SERVICES},
            metrics={name: plan.address(name, "metrics") for name in SERVICES},
            pid=os.getpid(),
        )
        write_json(plan.layout.mesh_file, content.model_dump())

    def _watch(self) -> None:
        self._watchers = [asyncio.create_task(self._keep_up(name)) for name in SERVICES]
        self._watchers.append(asyncio.create_task(self._keep_postgres_up()))

    async def _keep_up(self, name: str) -> None:
        restarts = Restarts()
        while not self._stopping:
            status = await self._children[name].wait()
            if self._stopping:
                return
            if not restarts.allowed(time.monotonic()):
                self._say(f"{name} ends again and again ({status}); it stays down: see its log")
                return
            self._say(f"{name} ended ({status}); starting it again")
            await asyncio.sleep(_RESTART_PAUSE_S)
            try:
                self._start_service(name)
            except OSError as error:
                # A full disk, say; the bounded tries go on, for it may be freed.
                self._say(f"{name} could not be started: {error.strerror}")

    async def _keep_postgres_up(self) -> None:
        restarts = Restarts()
        while not self._stopping:
            why = await self._postgres_end()
            if not restarts.allowed(time.monotonic()):
                self._say("postgres ends again and again; it stays down: see its log")
                return
            self._say(f"postgres {why}; starting it again")
            try:
                await self._postgres.start()
            except (PostgresUnavailable, TimeoutError) as error:
                self._say(str(error) or "PostgreSQL did not start in time")

    async def _postgres_end(self) -> str:
        """Wait until Postgres ends or, by two missed answers, counts as frozen; say which."""
        missed = 0
        while missed < _POSTGRES_MISSES:
            try:
                status = await asyncio.wait_for(self._postgres.wait(), _POSTGRES_CHECK_S)
                return f"ended ({status})"
            except TimeoutError:
                answered = await self._postgres.answers(_POSTGRES_ANSWER_S)
                missed = 0 if answered else missed + 1
        await self._postgres.kill()
        return "gave no answer and was killed"


def _postgres(plan: Plan) -> EmbeddedPostgres | ExternalPostgres:
    url = os.environ.get(POSTGRES_URL_KEY)
    if url:
        return ExternalPostgres(url, plan.layout.postgres)
    return EmbeddedPostgres(plan.layout.postgres, log_file=plan.layout.logs / "postgres.log")


def concerns(service: str, key: str) -> bool:
    """Whether a service should see an environment variable: not another's, which may be secret."""
    others = tuple(f"ECHOMESH_{name.upper()}_" for name in SERVICES if name != service)
    return key != POSTGRES_URL_KEY and (not key.startswith(others) or key.endswith("_TARGET"))


async def is_serving(address: str) -> bool:
    """Whether a service says SERVING there."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=1.0
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
