"""Health of a service, and apart from it: which of the parts it needs it can reach now.

A service's own health never follows a dependency: a part that is away must not take others with it.
What is reached is told by `Health.List`, on the mesh listener alone, under `dependency/NAME`, for
`echomesh up` and `doctor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError
from services.runtime.logs import get_logger

DEPENDENCY_PREFIX = "dependency/"
"""Before the name of a dependency in the answer of `Health.List`."""

PROBE_LIMIT_S = 1.0
"""What does not answer in this time counts as away."""

Dependency: TypeAlias = Callable[[], Awaitable[bool]]
"""Says whether a part is reached now; an AppError means no."""

Context: TypeAlias = Any
_Status: TypeAlias = health_pb2.HealthCheckResponse


class MeshHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The health service of a mesh listener: `own` health, and the dependencies by `List`."""

    def __init__(
        self, name: str, own: health.aio.HealthServicer, dependencies: Mapping[str, Dependency]
    ) -> None:
        self._name = name
        self._own = own
        self._dependencies = dependencies
        self._looking: asyncio.Task[dict[str, bool]] | None = None

    async def Check(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The service's own health."""
        return await self._own.Check(request, context)

    async def Watch(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """The service's own health, each time it changes."""
        await self._own.Watch(request, context)

    async def List(  # noqa: N802 - the name in the contract
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        """The service's own health and whether each dependency is reached now."""
        asked = health_pb2.HealthCheckRequest(service=self._name)
        statuses = {self._name: await self._own.Check(asked, context)}
        for name, well in (await self._look()).items():
            status = _Status.SERVING if well else _Status.NOT_SERVING
            statuses[DEPENDENCY_PREFIX + name] = health_pb2.HealthCheckResponse(status=status)
        return health_pb2.HealthListResponse(statuses=statuses)

    async def _look(self) -> Mapping[str, bool]:
        """What is reached now; all who ask at once share one look.

        Health is never refused, and a look takes a connection to Postgres from its callers.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(reached(self._dependencies))
        return await asyncio.shield(self._looking)


async def reached(dependencies: Mapping[str, Dependency]) -> dict[str, bool]:
    """Look at all dependencies at once: which are reached now."""
    found = await asyncio.gather(*(_is_reached(name, each) for name, each in dependencies.items()))
    return dict(zip(dependencies, found, strict=True))


async def _is_reached(name: str, dependency: Dependency) -> bool:
    try:
        with deadline_scope(PROBE_LIMIT_S, extend=True):
            async with asyncio.timeout(PROBE_LIMIT_S):
                return await dependency()
    except (AppError, TimeoutError):
        return False
    except Exception as error:
        # A refused password, say: what cannot be used must not hide what can.
        get_logger().warning("dependency_refused", dependency=name, exc_info=error)
        return False


def connected(channel: grpc.aio.Channel) -> Dependency:
    """A dependency on what a channel leads to; an idle channel begins to connect when asked."""

    async def is_ready() -> bool:
        return channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    return is_ready
