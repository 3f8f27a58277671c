"""A local mesh as processes: started in order, watched, restarted, stopped in order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from services.cli.files import CommandError, MeshFile, write_json
from services.cli.health import Answer, MeshTls, ask_health, ask_reach, own_certificate
from services.cli.keeping import ANSWER_LIMIT_S, Pulse, Restarts
from services.cli.parts import START_S, bootstrap_auth, start_database, start_service
from services.cli.plan import GATEWAY, SERVICES, Plan
from services.runtime.embedded import ROOM_BYTES, EmbeddedPostgres
from services.runtime.external import ExternalPostgres
from services.runtime.process import Child
from services.runtime.roles import RoleDsns
from services.runtime.trust import create_trust

_STOP_S = 12.0
# Where requests come in, in the order of stopping: each needs those after it to end its work.
_DOORS = (GATEWAY, "routing")
_POLL_S = 0.1
# So long all parts have to find each other; then the mesh is up, and says what is missing.
_CONNECT_S = 15.0
# Postgres that gives no answer for so long is frozen, and is killed to be started anew.
_POSTGRES_ANSWER_S = 4.0
_POSTGRES_CHECK_S = 2.0
_POSTGRES_MISSES = 2
# How soon a server is back after somebody has made room on a full disk.
_ROOM_CHECK_S = 1.0
# The setting that names a server of the user's own.
POSTGRES_URL_KEY = "ECHOMESH_POSTGRES_URL"

# What holds unless the environment says otherwise: no balancer is told that a service leaves,
# and there is no second one to turn to.
_USUAL = {"ECHOMESH_DRAIN_S": "0"}

Say = Callable[[str], None]


class Stack:
    """The running parts of a plan. `start` then `stop`, each once."""

    def __init__(self, plan: Plan, say: Say, waiting: Say) -> None:
        """Take what is to run, and whom to tell what happened and what is waited for."""
        self._plan = plan
        self._say = say
        self._waiting = waiting
        self._postgres = _postgres(plan)
        self._dsns: Mapping[str, RoleDsns] = {}
        self._children: dict[str, Child] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._certificate = own_certificate(plan.layout) if plan.mutual_tls else None

    async def start(self) -> None:
        """Bring everything up; raises CommandError in one line, with nothing left running."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            self._create_trust()
            self._waiting("postgres")
            self._start_services("embeddings", "models")  # these need no database
            await self._start_postgres()
            self._say("postgres is up")
            self._start_services("memory", "routing", GATEWAY)
            self._waiting("the first user and keys")
            await self._prepare_auth()
            self._start_services("auth")
            self._waiting("the services")
            await asyncio.gather(*(self._wait_healthy(name) for name in SERVICES))
            self._waiting("the services to reach each other")
            await asyncio.gather(*(self._wait_connected(name) for name in SERVICES))
            self._write_mesh_file()
            self._watch()
            undo.pop_all()

    async def stop(self) -> None:
        """The doors first, Postgres last, so that nothing that was acknowledged is lost."""
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        self._plan.layout.mesh_file.unlink(missing_ok=True)
        try:
            for door in _DOORS:
                await self._stop_services(door)
            await self._stop_services(*(name for name in SERVICES if name not in _DOORS))
        finally:
            await self._postgres.stop()

    async def _stop_services(self, *names: str) -> None:
        children = [self._children[name] for name in names if name in self._children]
        await asyncio.gather(*(child.stop(grace_s=_STOP_S) for child in children))

    async def _start_postgres(self) -> None:
        self._dsns = await start_database(self._postgres, self._plan.layout)

    def _create_trust(self) -> None:
        folder = self._plan.layout.trust
        try:
            create_trust(folder, SERVICES)
        except ValueError:
            # Services know each other by these keys alone, so new ones lose nothing.
            raise CommandError(f"{folder} holds a broken key: move the folder away") from None

    async def _prepare_auth(self) -> None:
        """Let auth make the first tenant, user and keys; it does so once for a folder."""
        await bootstrap_auth(self._environment("auth"), self._plan.layout.credentials)

    def _environment(self, name: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if concerns(name, k)}
        return {**_USUAL, **inherited, **self._plan.environment(name, self._dsns)}

    def _start_services(self, *names: str) -> None:
        for name in names:
            self._start_service(name)

    def _start_service(self, name: str) -> None:
        output = self._plan.layout.logs / f"{name}.out"
        self._children[name] = start_service(name, self._environment(name), output)

    async def _wait_healthy(self, name: str) -> None:
        ends, tls = time.monotonic() + START_S, self._tls(name)
        while time.monotonic() < ends:
            child = self._children[name]
            if child.returncode is not None:
                raise CommandError(f"{name} did not start: {self._last_words(name)}")
            if await ask_health(self._plan.address(name, "mesh"), 1.0, tls) is Answer.SERVING:
                self._say(f"{name} is up")
                return
            await asyncio.sleep(_POLL_S)
        raise CommandError(f"{name} did not start within {START_S:.0f} s: see its log")

    async def _wait_connected(self, name: str) -> None:
        """Wait, within a limit, until a service reaches what it needs; else recall is degraded."""
        ends = time.monotonic() + _CONNECT_S
        while True:
            reach = await ask_reach(self._plan.address(name, "mesh"), self._tls(name))
            if reach is not None and not reach.missing:
                return
            if time.monotonic() >= ends:
                missing = ", ".join(reach.missing) if reach else "it does not say what"
                self._say(f"{name} does without what it cannot reach yet: {missing}")
                return
            await asyncio.sleep(_POLL_S)

    def _tls(self, name: str) -> MeshTls | None:
        """How to connect to a service's mesh listener."""
        if self._certificate is None:
            return None
        self._certificate.fresh()  # they may be made anew while the mesh is up
        return MeshTls(self._certificate.current, name)

    def _last_words(self, name: str) -> str:
        text = (self._plan.layout.logs / f"{name}.out").read_text(errors="replace")
        lines = text.strip().splitlines()
        return lines[-1] if lines else f"see {self._plan.layout.logs / f'{name}.log'}"

    def _write_mesh_file(self) -> None:
        plan = self._plan
        content = MeshFile(
            address=plan.address("routing", "public"),
            http=plan.http_url,
            services={name: plan.address(name, "mesh") for name in SERVICES},
            metrics={name: plan.address(name, "metrics") for name in SERVICES},
            mutual_tls=plan.mutual_tls,
            pid=os.getpid(),
        )
        write_json(plan.layout.mesh_file, content.model_dump())

    def _watch(self) -> None:
        self._watchers = [asyncio.create_task(self._keep_up(name)) for name in SERVICES]
        self._watchers.append(asyncio.create_task(self._keep_postgres_up()))

    async def _keep_up(self, name: str) -> None:
        restarts = Restarts()
        while not self._stopping:
            why = await self._service_end(name)
            if self._stopping:
                return
            pause_s = restarts.next_pause_s(time.monotonic())
            self._say(f"{name} {why}; starting it again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            try:
                self._start_service(name)
            except Exception as error:
                # A full disk, say. Whatever it was, the bounded tries go on: it may pass.
                self._say(f"{name} could not be started: {error}")

    async def _service_end(self, name: str) -> str:
        """Wait until a service's process ends, or kill it when it is frozen; say which."""
        child, pulse = self._children[name], Pulse()
        while True:
            try:
                return f"ended ({await asyncio.wait_for(child.wait(), pulse.next_check_s)})"
            except TimeoutError:
                address, tls = self._plan.address(name, "mesh"), self._tls(name)
                answer = await ask_health(address, ANSWER_LIMIT_S, tls)
            why = pulse.take(answer, time.monotonic())
            if why:
                await child.kill()
                return f"{why} and was killed"

    async def _keep_postgres_up(self) -> None:
        restarts = Restarts()
        while not self._stopping:
            why = await self._postgres_end()
            if not self._postgres.has_room():
                await self._wait_for_room()
                restarts = Restarts()  # what the full disk did is no defect of the server
            pause_s = restarts.next_pause_s(time.monotonic())
            self._say(f"postgres {why}; starting it again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            try:
                await self._postgres.start()
            except Exception as error:
                # Likewise: a watcher that ends without a word would leave Postgres down for good.
                self._say(str(error) or "PostgreSQL did not start in time")

    async def _wait_for_room(self) -> None:
        """Wait until the disk is no longer full: no server could start, and each try is lost."""
        self._say(f"the disk is full: postgres starts once {ROOM_BYTES // 2**20} MB are free")
        while True:
            await asyncio.sleep(_ROOM_CHECK_S)
            if self._postgres.has_room():
                return

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
