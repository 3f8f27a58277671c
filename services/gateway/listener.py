"""The HTTP listener: uvicorn inside the service's own life."""

from __future__ import annotations

import asyncio
import math
import resource
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from services.gateway.config import GatewaySettings
from services.gateway.connection import Connection
from services.gateway.tls import context_of
from services.runtime.errors import AppError, Reason

# Longer than the pauses of people who chat, so that a connection is made once.
_KEEP_ALIVE_S = 75
_BACKLOG = 1024
# Files that the process needs beside its clients' connections.
_OTHER_FILES = 128


class HttpListener:
    """One address that serves an ASGI application."""

    def __init__(self, app: Any, settings: GatewaySettings) -> None:
        self._settings = settings
        self._app = app
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen and return host:port; raises AppError in one line if the address is taken."""
        context = context_of(self._settings)
        address = self._settings.public_address
        _allow_files(self._settings.max_connections + _OTHER_FILES)
        listening = _bind(address)
        server = self._server = _Server(self._config(context))
        self._serving = asyncio.create_task(server.serve(sockets=[listening]))
        await server.listening.wait()
        return f"{address.rpartition(':')[0]}:{listening.getsockname()[1]}"

    async def stop(self) -> None:
        """Refuse new connections and let running requests end, within the settings' grace."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving

    def _config(self, context: ssl.SSLContext | None) -> uvicorn.Config:
        grace_s = math.ceil(self._settings.stop_grace_s)
        return uvicorn.Config(
            self._app,
            http=partial(Connection, max_connections=self._settings.max_connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace_s,
            ssl_context_factory=(lambda *_: context) if context else None,
        )


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the process that it is a part of."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _allow_files(wanted: int) -> None:
    """Let the process have so many open files, as far as it may: many shells begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise AppError(Reason.INTERNAL, f"gateway: {address} is in use") from None
    return listening
