"""Server-sent events out of a byte stream, with bounded lines."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

# A line of a chat stream is a few hundred bytes; tool arguments in one piece may be long.
MAX_LINE_BYTES = 1 << 20


class LineTooLong(Exception):
    """The stream holds a line beyond the bound."""


async def events(
    chunks: AsyncIterable[bytes], max_line_bytes: int = MAX_LINE_BYTES
) -> AsyncIterator[str]:
    """Streams the data of each event; comments, ids and event names are left out.

    Raises:
        LineTooLong: a line, or all lines of one event, are longer than `max_line_bytes`.

    """
    data: list[str] = []
    async for line in _lines(chunks, max_line_bytes):
        if line:
            name, _, value = line.partition(":")
            data += [value.removeprefix(" ")] if name == "data" else []
        elif data:
            yield "\n".join(data)
            data = []
        if sum(map(len, data)) > max_line_bytes:
            raise LineTooLong
    if data:
        yield "\n".join(data)


async def _lines(chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncIterator[str]:
    """Lines ended by LF or CRLF; the last one may have no end."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > max_bytes:
            raise LineTooLong
        for line in whole:
            yield _text(line)
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", errors="replace")
