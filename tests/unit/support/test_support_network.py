"""The proxy that spoils networks does what its name says, or fault tests prove nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.support.network import Network, network_to


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """The way to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with network_to(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()


class Line:
    """A connection by the network."""

    def __init__(self, ends: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.reader, self.writer = ends

    async def say(self, text: bytes) -> None:
        self.writer.write(text)
        await self.writer.drain()

    async def hear(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), 30)

    async def silent(self) -> bool:
        """Whether nothing has come in a time in which much would have."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.reader.readexactly(1), 0.2)
            return False
        return True


async def connect(network: Network) -> Line:
    """A new connection."""
    return Line(await asyncio.open_connection("127.0.0.1", network.port))


async def test_partition_lets_nothing_through_and_healing_brings_all_of_it_in_order(
    network: Network,
) -> None:
    old = await connect(network)
    await old.say(b"a")
    assert await old.hear(1) == b"a"
    network.partition()
    new = await connect(network)
    await old.say(b"bc")
    await new.say(b"d")
    assert await old.silent()
    assert await new.silent()
    network.heal()
    assert await old.hear(2) == b"bc"
    assert await new.hear(1) == b"d"


async def test_reset_ends_connections_hard_and_serves_new_ones(network: Network) -> None:
    line = await connect(network)
    await line.say(b"a")
    assert await line.hear(1) == b"a"
    network.reset()
    with pytest.raises(ConnectionResetError):
        await line.hear(1)
    again = await connect(network)
    await again.say(b"b")
    assert await again.hear(1) == b"b"


async def test_delay_holds_every_piece_back_and_keeps_the_order(network: Network) -> None:
    line = await connect(network)
    loop = asyncio.get_running_loop()
    network.delay(0.2)
    network.stalls(every=2, seconds=0.1)
    started = loop.time()
    for text in (b"ab", b"cd", b"ef"):
        await line.say(text)
    assert await line.hear(6) == b"abcdef"
    assert loop.time() - started >= 0.4
