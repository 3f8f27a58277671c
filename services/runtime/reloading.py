"""A channel that follows its certificate: gRPC reloads those of servers only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from services.runtime.certificate_files import CertificateFiles, Pem

Connect = Callable[[Pem], grpc.aio.Channel]

LOOK_S = 1.0
"""How often calls look whether the files have changed."""


class _Wire:
    """One channel of gRPC, and the calls that run on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._running = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether it is closed for good."""
        return self._closing is not None and self._closing.done()

    def began(self, call: Any) -> Any:
        """Count a call until it is over, however it ends."""
        self._running += 1
        call.add_done_callback(self._ended)
        return call

    def retire(self) -> None:
        """Close once the last call is over: none is cut off."""
        self._retired = True
        self._close_if_idle()

    def _ended(self, _: Any) -> None:
        self._running -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and self._running == 0 and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.channel.close())


class ReloadingChannel(grpc.aio.Channel):
    """A channel whose later calls go over a new one as soon as its certificate has changed."""

    def __init__(self, files: CertificateFiles, connect: Connect) -> None:
        """Connect with what the files hold; nobody else may read them through `files`."""
        self._files = files
        self._connect = connect
        self._wire = _Wire(connect(files.current))
        self._looked_at = time.monotonic()
        self._left: list[_Wire] = []

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One request, one response."""
        return self._multicallable("unary_unary", method, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One request, a stream of responses."""
        return self._multicallable("unary_stream", method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A stream of requests, one response."""
        return self._multicallable("stream_unary", method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Streams both ways."""
        return self._multicallable("stream_stream", method, *args, **kwargs)

    async def close(self, grace: float | None = None) -> None:
        """Close, and cut off calls that run on channels left before."""
        for wire in (*self._left, self._wire):
            await wire.channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The connection's state."""
        return self._current().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the connection's state is another."""
        await self._current().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the connection stands."""
        await self._current().channel.channel_ready()

    async def __aenter__(self) -> ReloadingChannel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _multicallable(self, kind: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        made: tuple[_Wire, Any] | None = None

        def call(*call_args: Any, **call_kwargs: Any) -> Any:
            nonlocal made
            wire = self._current()
            if made is None or made[0] is not wire:
                made = wire, getattr(wire.channel, kind)(*args, **kwargs)
            return wire.began(made[1](*call_args, **call_kwargs))

        return call

    def _current(self) -> _Wire:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            pem = self._files.fresh()
            if pem is not None:
                self._replace(pem)
        return self._wire

    def _replace(self, pem: Pem) -> None:
        old, self._wire = self._wire, _Wire(self._connect(pem))
        self._left = [wire for wire in (*self._left, old) if not wire.closed]
        old.retire()
