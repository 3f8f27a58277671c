"""An OpenAI-compatible server for tests, well-behaved or not: raw HTTP/1.1 on a loopback port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True)
class Answer:
    """What the server sends for one chat request; nothing at all with a `status` of 0.

    `parts` follow the head one by one. With `hold` the connection stays open and silent after
    the last part; otherwise it is closed, without the end mark of a chunked body if `cut`.
    `forever` says the last part again and again, `pause_s` seconds apart; otherwise the end
    comes that long after the last part. `left` is set when the client leaves before the end.
    """

    parts: Sequence[bytes] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Sequence[tuple[str, str]] = ()
    hold: bool = False
    cut: bool = False
    forever: bool = False
    pause_s: float = 0.0
    left: asyncio.Event | None = None


def sse(data: object) -> bytes:
    """One event of a stream; a string goes as it is."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\n\n".encode()


def delta(content: str = "", **more: Any) -> bytes:
    """One piece of a reply."""
    return sse({"choices": [{"index": 0, "delta": {"content": content, **more}}]})


def finish(reason: str = "stop") -> bytes:
    """The piece that says why the reply ended."""
    return sse({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


USAGE = sse({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}})
DONE = sse("[DONE]")


def reply(*texts: str) -> Answer:
    """A whole, well-formed streamed reply."""
    return Answer([*(delta(text) for text in texts), finish(), USAGE, DONE])


@dataclass
class OpenAIDouble:
    """The server's script and what it has seen.

    `answers` are used up in order; the last one stays. `hung_up` is set when a client leaves
    while an answer is under way; `looks` counts how often the list of models was asked for. With a
    `capacity` a chat request beyond so many at once gets status 429, which `refused` counts.
    """

    answers: list[Answer] = field(default_factory=lambda: [reply("Hello", " there")])
    models: Sequence[dict[str, Any]] = ({"id": "tiny", "max_model_len": 2048},)
    models_status: int = 200
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    looks: int = 0
    capacity: int | None = None
    refused: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _answering: int = 0

    @property
    def url(self) -> str:
        """The base address to configure."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Listen; the port stays the same when started again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a client that goes away ends its connection
        except asyncio.CancelledError:
            pass  # the server is stopped
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if head[0].startswith("GET"):
            await self._list_models(writer)
            return
        self.requests.append(json.loads(body))
        self.headers.append(headers)
        self._answering += 1
        try:
            await self._answer(self._next_answer(), reader, writer)
        finally:
            self._answering -= 1

    def _next_answer(self) -> Answer:
        if self.capacity is not None and self._answering > self.capacity:
            self.refused += 1
            return Answer([b"{}"], status=429)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def _list_models(self, writer: asyncio.StreamWriter) -> None:
        self.looks += 1
        listed = json.dumps({"object": "list", "data": list(self.models)}).encode()
        writer.write(_head(self.models_status, "application/json") + _chunk(listed) + _chunk(b""))
        await writer.drain()

    async def _answer(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left = asyncio.create_task(reader.read())
        sending = asyncio.create_task(self._send(answer, writer))
        try:
            await asyncio.wait({left, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() or sending.exception() is not None:
                self.hung_up.set()
                if answer.left is not None:
                    answer.left.set()
        finally:
            for task in (left, sending):
                task.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await task

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        if not answer.status:
            return
        writer.write(_head(answer.status, answer.content_type, answer.headers))
        for part in answer.parts:
            writer.write(_chunk(part))
            await writer.drain()
        while answer.forever:
            writer.write(_chunk(answer.parts[-1]))
            await writer.drain()
            await asyncio.sleep(answer.pause_s)
        if answer.hold:
            await asyncio.Event().wait()
        await asyncio.sleep(answer.pause_s)
        if not answer.cut:
            writer.write(_chunk(b""))
        await writer.drain()


def _head(status: int, content_type: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}",
        f"Content-Type: {content_type}",
        "Transfer-Encoding: chunked",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def openai_double(
    configure: Callable[[OpenAIDouble], None] | None = None,
) -> AsyncIterator[OpenAIDouble]:
    """A running server, stopped at the end."""
    double = OpenAIDouble()
    if configure:
        configure(double)
    await double.start()
    try:
        yield double
    finally:
        await double.stop()
