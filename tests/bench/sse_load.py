"""A load of streamed chat completions over raw sockets: little of what is seen is its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_END = b"0\r\n\r\n"
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Seen:
    """One reply: seconds to its first text and to its end; `error` is empty if it was well."""

    first_s: float
    total_s: float
    error: str = ""


@dataclass(frozen=True)
class Address:
    """Where to ask, and with what headers and body."""

    port: int
    model: str
    headers: Mapping[str, str]
    path: str = "/v1/chat/completions"

    def request(self) -> bytes:
        """The whole request."""
        messages = [{"role": "user", "content": "Tell me something about the sea, please."}]
        body: dict[str, Any] = {"model": self.model, "stream": True, "messages": messages}
        content = json.dumps(body).encode()
        told = {
            "host": f"127.0.0.1:{self.port}",
            "content-type": "application/json",
            "content-length": str(len(content)),
            **self.headers,
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in told.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def load(address: Address, requests: int, parallel: int) -> list[Seen]:
    """Ask `requests` times over `parallel` connections that are kept, one after the other."""
    left = iter(range(requests))
    seen: list[Seen] = []
    await asyncio.gather(*(_talk(address, left, seen) for _ in range(parallel)))
    return seen


async def _talk(address: Address, left: Iterator[int], seen: list[Seen]) -> None:
    """Ask while there is something left to ask; an error costs the connection."""
    request = address.request()
    writer: asyncio.StreamWriter | None = None
    for _ in left:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        async with asyncio.timeout(_TIMEOUT_S):
            seen.append(await _ask(reader, writer, request))
        if seen[-1].error:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Seen:
    began, first_s, answer = time.perf_counter(), 0.0, b""
    writer.write(request)
    while not answer.endswith(_END):
        part = await reader.read(65_536)
        if not part:
            return Seen(0.0, 0.0, f"the connection was closed: {answer[:200]!r}")
        answer += part
        if not first_s and b'"content":"w0' in answer.replace(b'": "', b'":"'):
            first_s = time.perf_counter() - began
        if not answer.startswith(b"HTTP/1.1 200"):
            return Seen(0.0, 0.0, repr(answer[:300]))
    return Seen(
        first_s,
        time.perf_counter() - began,
        "" if first_s else f"other text came: {answer[-600:]!r}",
    )
