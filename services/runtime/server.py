"""The one server factory: its listeners, health, limits and an orderly stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime import garbage
from services.runtime.authenticate import Authenticator
from services.runtime.channel import MAX_MESSAGE_BYTES
from services.runtime.errors import AppError, Reason
from services.runtime.health import Dependency, MeshHealth
from services.runtime.interceptor import CallInterceptor
from services.runtime.logs import get_logger, setup_logs
from services.runtime.metrics import at_scrape, start_metrics_server, watch_event_loop
from services.runtime.process import end_with_parent
from services.runtime.settings import ServiceSettings
from services.runtime.telemetry import setup_telemetry
from services.runtime.tls import PeerPolicy, mesh_credentials, public_credentials
from services.runtime.tokens import AssertionVerifier, TokenValidator
from services.runtime.watching import surroundings, watch_dependencies

MAX_IN_FLIGHT = 1_000
# Who watches health gets this long to hear of it.
_FLUSH_S = 0.2
_COMMON: list[tuple[str, Any]] = [
    # Two processes would silently share a port.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.server_handshake_timeout_ms", 3_000),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.keepalive_permit_without_calls", 1),
]
# Clients may ping this often: SDKs every 20 s, services every 2 s.
_PUBLIC = [*_COMMON, ("grpc.http2.min_ping_interval_without_data_ms", 10_000)]
_MESH = [
    *_COMMON,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
]


@dataclass(frozen=True)
class Registration:
    """A servicer and the generated function that adds it to a server."""

    add: Callable[[Any, grpc.aio.Server], None]
    servicer: Any
    # The gRPC service's full name, such as "echomesh.memory.v1.MemoryService".
    name: str


@dataclass
class Server:
    """The listeners of one process. `public` and `mesh` are what each of them serves."""

    name: str
    settings: ServiceSettings
    public: Sequence[Registration] = ()
    mesh: Sequence[Registration] = ()
    validator: TokenValidator | None = None
    verifier: AssertionVerifier | None = None
    max_in_flight: int = MAX_IN_FLIGHT
    # What it needs to do all its work, by name; told on the mesh listener, apart from its health.
    dependencies: Mapping[str, Dependency] = field(default_factory=dict)
    # The address each listener got, with the real port if 0 was asked for.
    public_bound: str = ""
    mesh_bound: str = ""
    health_bound: str = ""
    _servers: list[grpc.aio.Server] = field(default_factory=list)
    _interceptors: list[CallInterceptor] = field(default_factory=list)
    _health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)

    async def start(self) -> None:
        """Listen; raises AppError in one line if a port is taken."""
        for name in ("", self.name):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self.settings.public_address:
            authenticator = Authenticator(self.validator, None)
            credentials = public_credentials(self.settings)
            self.public_bound = await self._listen(
                self.settings.public_address, self.public, _PUBLIC, authenticator, credentials
            )
        if self.settings.mesh_address:
            credentials = mesh_credentials(self.settings)
            peers = PeerPolicy(self.settings.mesh_trust_domain) if credentials else None
            authenticator = Authenticator(self.validator, self.verifier, peers)
            self.mesh_bound = await self._listen(
                self.settings.mesh_address, self.mesh, _MESH, authenticator, credentials
            )
        if self.settings.health_address:
            # Whoever probes has no token, and finds nothing here that needs one.
            self.health_bound = await self._listen(
                self.settings.health_address, (), _COMMON, Authenticator(None, None)
            )

    async def _listen(
        self,
        address: str,
        registrations: Sequence[Registration],
        options: list[tuple[str, Any]],
        authenticator: Authenticator,
        credentials: grpc.ServerCredentials | None = None,
    ) -> str:
        debug = self.settings.reflection or self.settings.channelz
        interceptor = CallInterceptor(authenticator, self.max_in_flight, debug=debug)
        server = grpc.aio.server(
            interceptors=[interceptor], options=[*options, *_ages(self.settings)]
        )
        for registration in registrations:
            registration.add(registration.servicer, server)
        is_mesh = options is _MESH
        own = self._health
        served = MeshHealth(self.name, own, self.dependencies) if is_mesh else own
        health_pb2_grpc.add_HealthServicer_to_server(served, server)
        if self.settings.reflection:
            names = [registration.name for registration in registrations]
            reflection.enable_server_reflection([*names, health.SERVICE_NAME], server)
        if self.settings.channelz and is_mesh:
            channelz.add_channelz_servicer(server)
        try:
            port = _bind(server, address, credentials)
        except RuntimeError:
            raise AppError(Reason.INTERNAL, f"{self.name}: {address} is in use") from None
        await server.start()
        self._servers.append(server)
        self._interceptors.append(interceptor)
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self, grace_s: float, drain_s: float = 0.0) -> None:
        """Say NOT_SERVING, wait for balancers, then let running calls end."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(drain_s)
        # Each is stopped once: gRPC crashes when two stops of one server end together.
        stopping = asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        await asyncio.sleep(_FLUSH_S)
        for interceptor in self._interceptors:
            interceptor.end_watches()
        await stopping


def _ages(settings: ServiceSettings) -> list[tuple[str, Any]]:
    """Options that end connections after a while; calls under way on one end by themselves."""
    if settings.connection_age_s is None:
        return []
    return [("grpc.max_connection_age_ms", round(settings.connection_age_s * 1000))]


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    if credentials is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials)


Build = Callable[[AsyncExitStack], Awaitable[Server]]


async def run_server(name: str, settings: ServiceSettings, build: Build) -> None:
    """Build a service, serve until SIGTERM or SIGINT, then stop it in order.

    `build` puts all it opens on the exit stack and returns the server, not yet started.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    async with AsyncExitStack() as stack:
        logs = setup_logs(name, settings)
        stack.callback(logs.close)
        stack.callback(setup_telemetry(name, settings).shutdown)
        if settings.metrics_address:
            stack.callback(start_metrics_server(settings.metrics_address).close)
            await background(stack, watch_event_loop())
        server = await build(stack)
        await server.start()
        if settings.metrics_address:
            stack.callback(at_scrape(lambda: surroundings(settings)))
            await background(stack, watch_dependencies(server.dependencies))
        garbage.settle()
        get_logger().info("serving", public=server.public_bound, mesh=server.mesh_bound)
        await stopping.wait()
        await server.stop(settings.stop_grace_s, drain_s=settings.drain_s)


def run(name: str, settings: ServiceSettings, build: Build) -> None:
    """The whole life of a service's process, on uvloop."""
    end_with_parent(grace_s=settings.drain_s + settings.stop_grace_s)
    try:
        uvloop.run(run_server(name, settings, build))
    except AppError as error:
        raise SystemExit(f"echomesh: {error.message}") from error


async def background(stack: AsyncExitStack, work: Any) -> asyncio.Task[Any]:
    """Start a task that ends with the stack; its failure is logged, never lost."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_failure)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task

    stack.push_async_callback(end)
    return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        get_logger().error("background_task_failed", exc_info=task.exception())
