"""The parent side of the worker contract: one worker process, kept alive.

The worker runs in a session of its own and is reached over a private unix socket. One that ends is
started again with back-off; one that is frozen is killed with its whole process group first. It
ends with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import grpc

from echomesh.worker.v1 import worker_pb2, worker_pb2_grpc
from services.runtime.errors import unavailable
from services.runtime.logs import get_logger
from services.runtime.process import Child, private_folder, spawn
from services.runtime.worker import MAX_MESSAGE_BYTES

SOCKET_VARIABLE = "ECHOMESH_WORKER_SOCKET"
"""Environment variable that tells a worker where to listen."""
_SETTINGS = "ECHOMESH_"


class WorkerState(StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class WorkerLimits:
    """How patient the supervisor is; seconds everywhere."""

    heartbeat_interval_s: float = 1.0
    heartbeat_timeout_s: float = 1.0
    missed_heartbeats: int = 3
    """This many in a row mean that the worker is frozen."""
    start_limit_s: float = 120.0
    """Loading a model on a loaded machine takes this long at worst."""
    first_backoff_s: float = 0.1
    max_backoff_s: float = 15.0
    failure_backoff_s: float = 60.0
    """Until one that says why it cannot get ready is tried again: mostly nothing has changed."""
    healthy_after_s: float = 60.0
    """A worker that was ready for so long starts over with the first back-off."""
    stop_grace_s: float = 4.0


def socket_from_environment() -> Path:
    """Return the socket that the supervisor chose; for a worker's `main`."""
    return Path(os.environ[SOCKET_VARIABLE])


@contextlib.contextmanager
def answers_or_away(name: str) -> Iterator[None]:
    """Surround a call to a worker: DEPENDENCY_UNAVAILABLE is raised if the worker is given up.

    Its channel is closed then, which gRPC tells as a cancel; passed on as one it would end the
    caller's task, that nobody has cancelled.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise unavailable(name) from None


def _inherited() -> dict[str, str]:
    """What is in the environment here but the settings of the mesh."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}


class WorkerSupervisor:
    """Keeps one worker process running and hands out channels to it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        socket_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        limits: WorkerLimits | None = None,
        prepare: Callable[[grpc.aio.Channel], Awaitable[None]] | None = None,
    ) -> None:
        """Describe the worker; `start` starts it.

        Args:
            name: short name, part of the socket's name and of log lines.
            argv: command line of the worker.
            socket_folder: private folder with a short path (`process.socket_folder`).
            env: additions to this process's environment, of which no setting of the mesh is
                passed on: there are secrets among them.
            limits: patience.
            prepare: awaited with the channel to each worker that says it is ready, before others
                may use it; one for which this fails is killed and started anew.

        """
        self.name = name
        self.state = WorkerState.STOPPED
        self.restarts = 0
        self.doing = ""
        """What a worker that is not ready yet does, in its own words."""
        self.failure = ""
        """Why the last worker could not get ready, in its own words; empty once one is."""
        self._argv = list(argv)
        self._folder = private_folder(socket_folder)
        self._env = dict(env or {})
        self._limits = limits or WorkerLimits()
        self._prepare = prepare
        self._log = get_logger().bind(worker=name)
        self._numbers = itertools.count(1)
        self._ready_at: float | None = None
        self._child: Child | None = None
        self._channel: grpc.aio.Channel | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running worker."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Begin to keep the worker running; returns at once (see `ready`)."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"worker-{self.name}")

    async def ready(self, timeout_s: float) -> None:
        """Wait until the worker takes requests.

        Raises:
            AppError: DEPENDENCY_UNAVAILABLE when it does not in time.

        """
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            raise unavailable(self.name) from None

    def channel(self) -> grpc.aio.Channel:
        """Return the channel to the worker as it runs now; ask again for every call.

        Raises:
            AppError: DEPENDENCY_UNAVAILABLE while there is no worker that takes requests.

        """
        if self._channel is None or not self._ready.is_set():
            raise unavailable(self.name)
        return self._channel

    async def stop(self) -> None:
        """Stop the worker and stop keeping it."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self.state = WorkerState.STOPPED

    async def _keep(self) -> None:
        limits, loop = self._limits, asyncio.get_running_loop()
        backoff_s = limits.first_backoff_s
        while True:
            self._ready_at = None
            why = await self._run_once()
            if self._ready_at is not None and loop.time() - self._ready_at > limits.healthy_after_s:
                backoff_s = limits.first_backoff_s
            wait_s = limits.failure_backoff_s if self.failure else backoff_s
            self.state = WorkerState.WAITING
            self.restarts += 1
            self._log.warning("worker_restarts", why=why, after_s=wait_s)
            await asyncio.sleep(wait_s)
            backoff_s = min(backoff_s * 2, limits.max_backoff_s)

    async def _run_once(self) -> str:
        """Run one worker process to its end and say why it ended."""
        self.state = WorkerState.STARTING
        socket = self._folder / f"{self.name}-{os.getpid()}-{next(self._numbers)}.sock"
        try:
            async with self._process(socket) as child, self._connection(socket) as channel:
                ended = asyncio.create_task(child.wait())
                watching = asyncio.create_task(self._watch(channel))
                try:
                    await asyncio.wait({ended, watching}, return_when=asyncio.FIRST_COMPLETED)
                    return f"exit {ended.result()}" if ended.done() else watching.result()
                finally:
                    ended.cancel()
                    watching.cancel()
        except OSError as error:
            return f"cannot start: {error.strerror}"
        except Exception as error:
            # Whatever it was, giving up without a word would leave the service without a worker.
            self._log.exception("worker_failed")
            return f"failed: {type(error).__name__}"

    @asynccontextmanager
    async def _process(self, socket: Path) -> AsyncIterator[Child]:
        environment = _inherited() | self._env | {SOCKET_VARIABLE: str(socket)}
        self._child = child = spawn(self._argv, env=environment)
        try:
            yield child
        except asyncio.CancelledError:
            await asyncio.shield(child.stop(grace_s=self._limits.stop_grace_s))
            raise
        finally:
            await asyncio.shield(child.kill())
            self._child = None
            socket.unlink(missing_ok=True)

    @asynccontextmanager
    async def _connection(self, socket: Path) -> AsyncIterator[grpc.aio.Channel]:
        channel = grpc.aio.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        self._channel = channel
        try:
            yield channel
        finally:
            # At once: nobody is to be told that it is ready while what is left of it is cleared.
            self.state = WorkerState.WAITING
            self._ready.clear()
            self._channel = None
            await channel.close()

    async def _watch(self, channel: grpc.aio.Channel) -> str:
        """Send heartbeats until the worker counts as frozen; say how it was noticed."""
        limits, loop = self._limits, asyncio.get_running_loop()
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        give_up_at = loop.time() + limits.start_limit_s
        missed = 0
        while True:
            said = await self._beat(stub)
            if said is not None and said.ready:
                missed = 0
                if not self._ready.is_set():
                    await self._now_ready(channel)
            elif not self._ready.is_set():
                if why := self._hopeless(said, late=loop.time() > give_up_at):
                    return why
            else:
                missed += 1
                if missed >= limits.missed_heartbeats:
                    return f"missed {missed} heartbeats"
            # Until it is ready, ask often: callers are waiting.
            await asyncio.sleep(limits.heartbeat_interval_s if self._ready.is_set() else 0.05)

    async def _now_ready(self, channel: grpc.aio.Channel) -> None:
        if self._prepare is not None:
            await self._prepare(channel)
        self._log.info("worker_ready", pid=self.pid)
        self.state, self.doing, self.failure = WorkerState.READY, "", ""
        self._ready_at = asyncio.get_running_loop().time()
        self._ready.set()

    def _hopeless(self, said: worker_pb2.HeartbeatResponse | None, *, late: bool) -> str:
        """Take what a worker says before it is ready; why it must be given up, or ""."""
        if said is not None:
            self.doing = said.doing
        if said is not None and said.failure:
            self.failure = said.failure
            return f"cannot get ready: {said.failure}"
        return f"not ready within {self._limits.start_limit_s} s" if late else ""

    async def _beat(
        self, stub: worker_pb2_grpc.WorkerServiceAsyncStub
    ) -> worker_pb2.HeartbeatResponse | None:
        try:
            return await stub.Heartbeat(
                worker_pb2.HeartbeatRequest(), timeout=self._limits.heartbeat_timeout_s
            )
        except grpc.aio.AioRpcError:
            return None
