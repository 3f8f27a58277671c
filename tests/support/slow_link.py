"""A slow and lossy link: a TCP proxy that holds data back, in a thread of its own.

What a lost packet does to TCP is a pause: the piece comes one retransmission later, and all that
was sent after it waits behind it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 16_384
# Linux sends a lost packet again no sooner than this.
RETRANSMISSION_S = 0.2


@dataclass
class Link:
    """The link's state, which may be changed while it runs.

    `delay_s` is added in each direction; `loss` is the share of pieces that are lost once.
    """

    target_port: int
    delay_s: float = 0.0
    loss: float = 0.0
    port: int = 0
    pieces: int = 0
    lost: int = 0
    _dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    @property
    def target(self) -> str:
        """The gRPC target that leads through this link."""
        return f"ipv4:127.0.0.1:{self.port}"

    def held_s(self) -> float:
        """How long the next piece is held."""
        self.pieces += 1
        if self._dice.random() < self.loss:
            self.lost += 1
            return self.delay_s + RETRANSMISSION_S
        return self.delay_s


async def _carry(link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction: pieces keep their order, and many may be under way at once."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while (piece := await under_way.get())[1]:
            await asyncio.sleep(max(0.0, piece[0] - loop.time()))
            writer.write(piece[1])
            await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()

    async def take() -> None:
        while data := await reader.read(_CHUNK_BYTES):
            under_way.put_nowait((loop.time() + link.held_s(), data))
        under_way.put_nowait((0.0, b""))

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        group.create_task(deliver())


async def _connect(link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        there, back = await asyncio.open_connection("127.0.0.1", link.target_port)
    except OSError:
        writer.close()  # as if nobody listened here either
        return
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_carry(link, reader, back))
            group.create_task(_carry(link, there, writer))
    except* (OSError, asyncio.CancelledError):
        pass  # one end is gone, and so the other is closed
    finally:
        for end in (writer, back):
            end.close()


@contextmanager
def slow_links(*links: Link) -> Iterator[None]:
    """Run the proxies until the block ends; each link's port is set if it is 0."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="slow-links", daemon=True)
    thread.start()
    for link in links:
        asyncio.run_coroutine_threadsafe(_listen(link), loop).result(10)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _listen(link: Link) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _connect(link, reader, writer), "127.0.0.1", link.port
    )
    link.port = server.sockets[0].getsockname()[1]


async def _end_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
