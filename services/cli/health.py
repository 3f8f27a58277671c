"""What services say of themselves: their health, and which of the parts they need they reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.files import CommandError
from services.cli.plan import Layout
from services.runtime.certificate_files import CertificateFiles, Pem, files_in
from services.runtime.errors import AppError
from services.runtime.health import DEPENDENCY_PREFIX, PROBE_LIMIT_S
from services.runtime.settings import TRUST_DOMAIN
from services.runtime.tls import channel_credentials, channel_options

_SERVING = health_pb2.HealthCheckResponse.SERVING
# The connection of one question is its own: a broken one of before says nothing of now.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Answer(Enum):
    """How a service answers a question for its health."""

    SERVING = "serving"
    AWAY = "away"
    """It refuses connections or says that it does not serve: it starts, stops or is gone."""
    SILENT = "silent"
    """It takes the connection and says nothing: it is frozen, or far too busy."""


@dataclass(frozen=True)
class Reach:
    """The parts that a service needs, by name, and whether it reaches them now."""

    reached: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class MeshTls:
    """What to show a mesh listener with mutual TLS, and the service whose certificate it has."""

    pem: Pem
    service: str


def own_certificate(layout: Layout) -> CertificateFiles:
    """The files by which commands connect to a data folder's services; raises CommandError."""
    try:
        return files_in(layout.cli_certs)
    except AppError as error:
        raise CommandError(f"{error.message}: make it with `echomesh certs`") from None


def _channel(address: str, tls: MeshTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    options = [*_OPTIONS, *channel_options(TRUST_DOMAIN, tls.service)]
    return grpc.aio.secure_channel(address, channel_credentials(tls.pem), options=options)


async def ask_health(address: str, timeout_s: float, tls: MeshTls | None = None) -> Answer:
    """Ask a service for its own health, on a connection of its own."""
    async with _channel(address, tls) as channel:
        return await health_of(channel, timeout_s)


async def health_of(channel: grpc.aio.Channel, timeout_s: float) -> Answer:
    """Ask the service at the end of a channel for its own health."""
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=timeout_s
        )
    except grpc.aio.AioRpcError as error:
        silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return Answer.SILENT if silent else Answer.AWAY
    return Answer.SERVING if answer.status == _SERVING else Answer.AWAY


async def ask_reach(address: str, tls: MeshTls | None = None) -> Reach | None:
    """Ask a service, on its mesh listener, what it reaches; None if it gives no answer."""
    async with _channel(address, tls) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).List(
                health_pb2.HealthListRequest(), timeout=2 * PROBE_LIMIT_S
            )
        except grpc.aio.AioRpcError:
            return None
    found = {
        name.removeprefix(DEPENDENCY_PREFIX): status.status == _SERVING
        for name, status in sorted(answer.statuses.items())
        if name.startswith(DEPENDENCY_PREFIX)
    }
    return Reach(
        reached=tuple(name for name, well in found.items() if well),
        missing=tuple(name for name, well in found.items() if not well),
    )
