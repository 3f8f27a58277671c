"""The gateway's composition root: the only place that builds and closes its parts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from services.gateway.app import make_app
from services.gateway.config import GatewaySettings
from services.gateway.listener import HttpListener
from services.gateway.mesh import connect
from services.runtime.clock import SystemClock
from services.runtime.security import open_security
from services.runtime.server import Server

NAME = "gateway"


@dataclass
class GatewayServer(Server):
    """The runtime's listeners (health alone), and HTTP beside them."""

    http: HttpListener | None = None

    async def start(self) -> None:
        """Listen; raises AppError in one line if a port is taken."""
        await super().start()
        if self.http is not None:
            self.public_bound = await self.http.start()

    async def stop(self, grace_s: float, drain_s: float = 0.0) -> None:
        """Say NOT_SERVING, wait for balancers, then let running requests end."""
        await asyncio.gather(self._stop_http(drain_s), super().stop(grace_s, drain_s))

    async def _stop_http(self, drain_s: float) -> None:
        await asyncio.sleep(drain_s)
        if self.http is not None:
            await self.http.stop()


async def build(settings: GatewaySettings, stack: AsyncExitStack) -> GatewayServer:
    """Build the service; what it opens is closed by `stack`."""
    security = await open_security(NAME, settings, stack)
    mesh = connect(settings, security.channels, security.validator, SystemClock())
    return GatewayServer(
        NAME,
        # What is public here is HTTP, and no gRPC listener of the runtime's.
        settings.model_copy(update={"public_address": None}),
        verifier=security.verifier,
        validator=security.validator,
        dependencies=security.channels.dependencies(),
        http=HttpListener(make_app(mesh), settings),
    )
