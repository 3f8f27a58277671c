"""An OpenAI-compatible server that costs next to nothing: what is in front of it is measured.

`python -m tests.bench.sse_upstream PORT FIRST_MS CHUNKS GAP_MS`: each reply has its first text
after FIRST_MS and CHUNKS pieces, GAP_MS apart.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

import httptools
import uvloop

from tests.support.openai_double import DONE, USAGE, delta, finish

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
_MODELS = json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}).encode()


@dataclass(frozen=True)
class Pace:
    """How a reply is timed, in seconds."""

    first_s: float
    chunks: int
    gap_s: float


class _Server(asyncio.Protocol):
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._whole(_MODELS)
            return
        task = asyncio.ensure_future(self._reply())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self) -> None:
        await asyncio.sleep(self._pace.first_s)
        head = _HEAD % b"text/event-stream"
        self._transport.write(head + b"transfer-encoding: chunked\r\n\r\n" + _chunk(_text(0)))
        for number in range(1, self._pace.chunks):
            await asyncio.sleep(self._pace.gap_s)
            self._transport.write(_chunk(_text(number)))
        self._transport.write(b"".join(map(_chunk, (finish(), USAGE, DONE))) + b"0\r\n\r\n")

    def _whole(self, body: bytes) -> None:
        head = _HEAD % b"application/json"
        self._transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)


def _text(number: int) -> bytes:
    return delta(f"w{number} ")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(port: int, pace: Pace) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(
        lambda: _Server(pace), "127.0.0.1", port
    )
    await server.serve_forever()


def main() -> None:
    """Read the arguments and serve."""
    port, first_ms, chunks, gap_ms = map(int, sys.argv[1:])
    uvloop.run(serve(port, Pace(first_ms / 1000, chunks, gap_ms / 1000)))


if __name__ == "__main__":
    main()
