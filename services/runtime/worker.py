"""The child side of the worker contract: a gRPC server on a unix socket, watched by a heartbeat.

A worker is a process that a service starts through `supervisor.WorkerSupervisor` because it must
not share the service's event loop or its fate: an embedded index, a model engine.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import grpc

from echomesh.worker.v1 import worker_pb2, worker_pb2_grpc
from services.runtime import garbage
from services.runtime.process import end_with_parent

STALL_LIMIT_S = 10.0
"""A request that makes no step for this long makes the worker fail its heartbeat."""

STARVED_LIMIT_S = 60.0
"""The same where the machine gives the worker too little time, by its clock of the CPU."""

_IDLE_SHARE = 0.05

STOP_GRACE_S = 2.0
"""Requests in flight get this long on SIGTERM; the service that asked is ending too."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A batch of vectors is large, and the socket never leaves the machine."""


WorkerContext: TypeAlias = (
    "grpc.aio.ServicerContext[worker_pb2.HeartbeatRequest, worker_pb2.HeartbeatResponse]"
)


class Progress:
    """Knows when each request in flight last made a step, and how loading goes.

    A worker that loads while it already answers heartbeats sets `ready` to False meanwhile, says
    in `doing` what it does, and in `failure` why it cannot be done.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._monotonic = monotonic
        self._cpu = cpu
        self._last_step: dict[object, tuple[float, float]] = {}
        self.ready = True
        self.doing = ""
        self.failure = ""

    @property
    def in_flight(self) -> int:
        """Number of requests being worked on."""
        return len(self._last_step)

    @contextmanager
    def request(self) -> Iterator[Callable[[], None]]:
        """Surround one request; call the yielded function after each step of it."""
        key = object()

        def step() -> None:
            # What is left of a request that has ended must not bring it back.
            if key in self._last_step:
                self._last_step[key] = self._monotonic(), self._cpu()

        self._last_step[key] = self._monotonic(), self._cpu()
        try:
            yield step
        finally:
            self._last_step.pop(key, None)

    def stalled(self) -> bool:
        """Whether a request makes no step although the worker could: it hangs, or goes in circles.

        One that computes and gets only some of a busy machine is waited for: killed, it would
        begin again with what it was at.
        """
        oldest, cpu_then = min(self._last_step.values(), default=(self._monotonic(), 0.0))
        waited_s = self._monotonic() - oldest
        used_s = self._cpu() - cpu_then
        starved = _IDLE_SHARE * waited_s < used_s < STALL_LIMIT_S
        return waited_s > (STARVED_LIMIT_S if starved else STALL_LIMIT_S)


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers the heartbeat."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    async def Heartbeat(  # noqa: N802 - the name in the contract
        self, request: worker_pb2.HeartbeatRequest, context: WorkerContext
    ) -> worker_pb2.HeartbeatResponse:
        """Say whether work goes on; refuse once it does not."""
        if self._progress.stalled():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "a request makes no progress")
        return worker_pb2.HeartbeatResponse(
            ready=self._progress.ready,
            requests_in_flight=self._progress.in_flight,
            doing=self._progress.doing,
            failure=self._progress.failure,
        )


Register = Callable[[grpc.aio.Server, Progress], Awaitable[None]]
"""Loads what the worker serves and adds its servicers; heartbeats start after it returns."""


async def run_worker(register: Register, socket_path: Path) -> None:
    """Serve on a unix socket until SIGTERM or until the parent is gone.

    Args:
        register: loads and adds the worker's own servicers.
        socket_path: socket in a private folder, given by the supervisor.

    """
    end_with_parent(grace_s=STOP_GRACE_S + 1)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    progress = Progress()
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
    )
    await register(server, progress)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(progress), server)
    socket_path.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{socket_path}")
    await server.start()
    garbage.settle()
    try:
        await stop.wait()
    finally:
        await server.stop(STOP_GRACE_S)
        socket_path.unlink(missing_ok=True)
