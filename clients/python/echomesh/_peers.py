"""The replicas of a service: which one to call next, and noticing one that froze under a call.

A frozen process keeps its connection, so a call to it would just last until its deadline. Health
answers at once even on a busy replica; a call that stays silent is therefore given up, and tried
elsewhere, when its replica does not answer a health check either.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from echomesh._errors import closed

# A call that has been silent for so long has its replica's health looked at.
_QUIET_S = 2.0
# A replica that gives no answer about its health within this time is frozen or cut off.
_PROBE_S = 2.0
# How often to look whether a replica that failed has come back.
_PROBE_EVERY_S = 1.0

# Calls on a connection that is left may go on for as long as any call may take.
_LONGEST_CALL_S = 600.0

_CHECK = "/grpc.health.v1.Health/Check"
# A health answer that says NOT_SERVING; this package has no stubs of the health service.
_NOT_SERVING = b"\x08\x02"
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class PeerLostError(Exception):
    """The replica that was called answers nothing any more."""


class Peer:
    """One replica, or a balancer in front of several: its address and its channel."""

    def __init__(self, address: str, connect: Callable[[str], grpc.aio.Channel]) -> None:
        self.address = address
        # Failed, and not yet seen healthy since: it is called only if there is no other.
        self.suspect = False
        self.probing: asyncio.Task[None] | None = None
        self.probed_at = 0.0
        self._connect = connect
        self._closed = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._open()

    def _open(self) -> None:
        self.channel = self._connect(self.address)
        self._check: Any = self.channel.unary_unary(_CHECK)

    def reconnect(self) -> None:
        """Use a new connection: behind a balancer it may lead to another replica."""
        task = asyncio.create_task(self.channel.close(_LONGEST_CALL_S))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        self._open()

    async def close(self) -> None:
        """Close the channel, and those that were left; calls under way end."""
        self._closed = True
        for task in (self.probing, *self._leaving):
            if task is not None:
                task.cancel()
        await self.channel.close()

    async def frozen(self) -> bool:
        """Whether a health check gets no answer at all; an error is one."""
        try:
            await self._check(b"", timeout=_PROBE_S)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return False

    async def recover(self) -> None:
        """Trust the replica again unless it is still away, frozen or about to end."""
        try:
            self.suspect = await self._check(b"", timeout=_PROBE_S) == _NOT_SERVING
        except grpc.aio.AioRpcError as error:
            # Some other answer is one too: what is in between may know no health checks.
            self.suspect = error.code() in _AWAY

    @contextmanager
    def watching(self, call: Any) -> Iterator[Watch]:
        """Give up a call, with PeerLostError, when this replica freezes under it.

        A connection that breaks makes the replica suspect too; the call's own error is raised.
        A call under which the client is closed is told so: its task was not cancelled.
        """
        watch = Watch(self, call)
        try:
            yield watch
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            if self._closed:
                raise closed() from None
            if not watch.lost:
                raise
            self.suspect = True
            if watch.channel is self.channel:  # else another call has seen it first
                self.reconnect()
            raise PeerLostError from None
        except grpc.aio.AioRpcError as error:
            # A deadline says nothing about the replica: the call may just have been too long.
            self.suspect |= error.code() is grpc.StatusCode.UNAVAILABLE
            raise
        finally:
            watch.stop()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Watch:
    """Looks after one call: cancels it, with `lost` set, when its replica is frozen."""

    def __init__(self, peer: Peer, call: Any) -> None:
        self.lost = False
        self.channel = peer.channel
        self._peer = peer
        self._call = call
        self._heard_at = time.monotonic()
        self._probe: asyncio.Task[None] | None = None
        self._timer = self._arm(_QUIET_S)

    def heard(self) -> None:
        """Note that the replica sent something."""
        self._heard_at = time.monotonic()

    def stop(self) -> None:
        """End the watch; the call is over."""
        self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()

    def _arm(self, delay_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        quiet_s = time.monotonic() - self._heard_at
        if quiet_s < _QUIET_S:
            self._timer = self._arm(_QUIET_S - quiet_s)
        else:
            self._probe = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        asked_at = time.monotonic()
        if await self._peer.frozen() and self._heard_at < asked_at:
            self.lost = True
            self._call.cancel()
            return
        self.heard()
        self._timer = self._arm(_QUIET_S)


class Peers:
    """The replicas that are known, by address; calls go round those that work."""

    def __init__(self, connect: Callable[[str], grpc.aio.Channel]) -> None:
        self._connect = connect
        self._closed = False
        self._peers: dict[str, Peer] = {}
        # A count for each list: with one for all, who calls two services by turns would call
        # only every other replica of each.
        self._turns: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    def pick(self, addresses: str) -> Peer:
        """The next of the replicas at `addresses` (host:port, separated by commas).

        Raises EchomeshError once they are closed.
        """
        if self._closed:
            raise closed()
        peers = [self._peer(address.strip()) for address in addresses.split(",")]
        working = [peer for peer in peers if not peer.suspect]
        for peer in peers:
            if peer.suspect:
                _look_again(peer)
        among = working or peers
        return among[next(self._turns[addresses]) % len(among)]

    async def close(self) -> None:
        """Close every channel, for good."""
        self._closed = True
        peers = list(self._peers.values())
        self._peers.clear()
        for peer in peers:
            await peer.close()

    def _peer(self, address: str) -> Peer:
        if address not in self._peers:
            self._peers[address] = Peer(address, self._connect)
        return self._peers[address]


def _look_again(peer: Peer) -> None:
    """Ask a suspect replica for its health behind the caller's back, now and then."""
    now = time.monotonic()
    if now - peer.probed_at >= _PROBE_EVERY_S and (peer.probing is None or peer.probing.done()):
        peer.probed_at = now
        peer.probing = asyncio.create_task(peer.recover())
