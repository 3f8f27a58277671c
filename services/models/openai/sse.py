"""Server-sent events out of a byte stream, with bounded lines. Pure."""

from __future__ import annotations

# A line of a chat stream is a few hundred bytes; tool arguments in one piece may be long.
MAX_LINE_BYTES = 1 << 20


class LineTooLong(Exception):
    """The stream holds a line beyond the bound."""


class Parser:
    """Takes a stream as it comes and gives the data of each event that is whole.

    Comments, ids and event names are left out. Lines end by LF or CRLF.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Returns the events that `chunk` completes.

        Raises:
            LineTooLong: a line, or all lines of one event, are longer than the bound.

        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise LineTooLong
        return [data for line in lines if (data := self._line(line.rstrip(b"\r"))) is not None]

    def end(self) -> list[str]:
        """Returns the last event, if the stream ended without an empty line after it."""
        return self.feed(b"\n\n")

    def _line(self, line: bytes) -> str | None:
        """Takes a line and returns the event that it ends."""
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            if sum(map(len, self._data)) > MAX_LINE_BYTES:
                raise LineTooLong
            return None
        data, self._data = self._data, []
        return b"\n".join(data).decode("utf-8", errors="replace") if data else None
