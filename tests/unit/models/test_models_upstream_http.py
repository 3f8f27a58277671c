"""HTTP to an upstream: which connection, by which way, under whose certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.models.config import Upstream
from services.models.domain import Event, Generation, Message, Role, Text
from services.models.openai.upstream import Server
from services.runtime.certificate_files import Pem
from services.runtime.certificates import host_certificate, new_authority
from services.runtime.errors import AppError, Reason
from tests.support.certified import DAY, now
from tests.support.openai_double import DONE, Answer, delta, finish, openai_double, reply

HI = Generation(messages=(Message(Role.USER, "Hi"),))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Keeping:
    """A server that keeps its connections and says when a body ends in a packet of its own."""

    tls: ssl.SSLContext | None = None
    connections: int = 0
    url: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Keeping]:
        server = await asyncio.start_server(self._serve, "localhost", 0, ssl=self.tls)
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://localhost:{port}/v1"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        body = delta("Hello") + finish() + DONE
        writer.write(HEAD + b"%x\r\n%s\r\n" % (len(body), body))
        await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def ask(url: str, times: int = 1) -> list[Event]:
    """Ask one after the other with one pool."""
    server = Server(Upstream(url=url, model="tiny", timeout_s=5.0))
    try:
        return [e for _ in range(times) async for e in server.attempt(HI, "tiny", "openai/tiny")]
    finally:
        await server.close()


def context_of(folder: Path, pem: Pem) -> ssl.SSLContext:
    """A server's TLS with a certificate."""
    (folder / "cert").write_bytes(pem.cert)
    (folder / "key").write_bytes(pem.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


async def test_a_connection_is_used_again_once_its_reply_has_ended() -> None:
    async with Keeping().running() as server:
        events = await ask(server.url, times=3)
    assert events.count(Text("Hello")) == 3
    assert server.connections == 1


async def test_the_servers_certificate_must_be_by_an_authority_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = new_authority(now(), DAY)
    pem = host_certificate(authority, ["localhost"], now(), DAY)
    async with Keeping(context_of(tmp_path, pem)).running() as server:
        with pytest.raises(AppError) as refused:
            await ask(server.url)
        assert refused.value.reason is Reason.MODEL_UNAVAILABLE
        (tmp_path / "authority").write_bytes(pem.authority)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority"))
        assert Text("Hello") in await ask(server.url)


async def test_what_is_on_this_machine_is_not_asked_for_by_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Keeping().running() as server:
        assert Text("Hello") in await ask(server.url)


async def test_a_prompt_is_not_sent_on_to_where_a_server_points() -> None:
    async with openai_double() as double, openai_double() as other:
        double.answers = [Answer(status=307, headers=[("Location", other.url)])]
        with pytest.raises(AppError) as refused:
            await ask(double.url)
    assert refused.value.reason is Reason.MODEL_REFUSED
    assert not other.requests


async def test_what_a_server_would_have_kept_is_not_sent_back_for_another_person() -> None:
    async with openai_double() as double:
        first = reply("Hello")
        double.answers = [Answer(first.parts, headers=[("Set-Cookie", "who=ann")])]
        await ask(double.url, times=2)
    assert all("cookie" not in headers for headers in double.headers)
