"""What services say of themselves: their health, and which of the parts they need they reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.health import DEPENDENCY_PREFIX, PROBE_LIMIT_S

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


async def ask_health(address: str, timeout_s: float) -> Answer:
    """Ask a service for its own health, on a connection of its own."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
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


async def ask_reach(address: str) -> Reach | None:
    """Ask a service, on its mesh listener, what it reaches; None if it gives no answer."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
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
