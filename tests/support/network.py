"""A TCP proxy that can be a bad network: slow, lossy, cut off, or resetting connections.

    with network_to(server.port) as link:      # connect to link.port instead
        link.delay(0.2)                        # every byte takes this long, in each direction
        link.stalls(every=20)                  # one piece in twenty is lost and sent again
        link.partition()                       # nothing gets through, nobody is told
        link.lose_answers()                    # ... but what is asked does
        link.heal()                            # what was on its way arrives now
        link.reset()                           # connections end with RST; new ones are served

It runs on a thread of its own, so tests with and without an event loop use it alike, and a change
holds when its call returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

HOST = "127.0.0.1"
PIECE_BYTES = 64 * 1024

PIECES_ON_THE_WAY = 256
"""Per direction; a sender of more has to wait, as with a full window."""

RETRANSMISSION_S = 0.2
"""Linux sends a lost packet again no sooner than this, and all that follows waits behind it."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class _Weather:
    """How pieces fare now; read for each piece when it is sent and when it is to arrive."""

    delay_s: float = 0.0
    stall_every: int = 0
    stall_s: float = 0.0


class Network:
    """The way to one server; see the module for what it can do."""

    def __init__(self, target_port: int) -> None:
        """Of the `pieces` that were sent so far, both ways together, `lost` came late."""
        self._target_port = target_port
        self._weather = _Weather()
        self._loop = asyncio.new_event_loop()
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self._set(there=True, back=True)
        self.pieces = self.lost = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    @property
    def target(self) -> str:
        """The gRPC target of the server, by this way."""
        return f"ipv4:{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Of the server, by this way."""
        return f"http://{HOST}:{self.port}"

    def delay(self, seconds: float) -> None:
        """Let every piece take ``seconds`` more, in each direction; 0 ends that."""
        self._now(lambda: setattr(self._weather, "delay_s", seconds))

    def stalls(self, every: int, seconds: float = RETRANSMISSION_S) -> None:
        """Let one piece in ``every`` take ``seconds`` more, as a lost packet does; 0 ends that."""

        def change() -> None:
            self._weather.stall_every, self._weather.stall_s = every, seconds

        self._now(change)

    def partition(self) -> None:
        """Let nothing through: connections stay, new ones are made, nothing is answered."""
        self._now(lambda: self._set(there=False, back=False))

    def lose_answers(self) -> None:
        """Let through what is asked, and nothing of what is answered."""
        self._now(lambda: self._set(there=True, back=False))

    def heal(self) -> None:
        """Let everything through again, also what waited."""
        self._now(lambda: self._set(there=True, back=True))

    def reset(self) -> None:
        """End every connection with RST, at both ends."""
        self._now(self._reset)

    def start(self) -> None:
        """Listen on a port of its own."""
        self._thread.start()
        listening = asyncio.start_server(self._accept, HOST, 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _set(self, *, there: bool, back: bool) -> None:
        for gate, is_open in ((self._there, there), (self._back, back)):
            gate.set() if is_open else gate.clear()

    def _now(self, change: Callable[[], object]) -> None:
        done = threading.Event()

        def apply() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(apply)
        assert done.wait(10), "the proxy's thread does not answer"

    def _reset(self) -> None:
        for writer in self._writers:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # an end that is away, or the end of the test: this connection ends
        finally:
            self._connections.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._known(writer):
            await self._there.wait()
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
            with self._known(far_writer):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._carry(reader, far_writer, self._there))
                    group.create_task(self._carry(far_reader, writer, self._back))

    @contextmanager
    def _known(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        """Carry pieces one way until the end of the connection, which is carried too."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_ON_THE_WAY)
        async with asyncio.TaskGroup() as group:
            group.create_task(_deliver(way, writer, gate))
            while True:
                await gate.wait()
                piece = await _read(reader)
                await way.put((self._due(), piece))
                if not piece:
                    break

    def _due(self) -> float:
        weather = self._weather
        self.pieces += 1
        lost = weather.stall_every > 0 and self.pieces % weather.stall_every == 0
        self.lost += lost
        return self._loop.time() + weather.delay_s + (weather.stall_s if lost else 0.0)


async def _deliver(
    way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    """Write pieces when they are due and the way is open, up to the end, which is told too."""
    loop = asyncio.get_running_loop()
    while True:
        due, piece = await way.get()
        await asyncio.sleep(max(0.0, due - loop.time()))
        await gate.wait()
        if not piece:
            break
        with suppress(OSError):  # the other end is gone; its reader says so to the sender
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return what came, or nothing at the end, however the connection ended."""
    try:
        return await reader.read(PIECE_BYTES)
    except OSError:
        return b""


@contextmanager
def network_to(port: int) -> Iterator[Network]:
    """Run a proxy to a server on this machine; it ends with the block."""
    network = Network(port)
    network.start()
    try:
        yield network
    finally:
        network.close()
