"""One HTTP/1.1 connection, with limits on whatever its client may leave undone.

uvicorn bounds how long a connection idles after a reply and nothing else. Here a client that does
not end what it began to send, or does not take what it asked for, is cut off: slowly sent heads,
heads without end, empty lines between requests, the rest of a refused body, replies left unread.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A client that has not sent a request's head by then is idle, slow or hostile.
HEAD_S = 10.0
HEAD_BYTES = 64 * 1024
# What is left of a body that nobody reads any more may come for so long.
REST_S = 30.0
# Nor is it waited longer for a client that takes nothing of what is sent to it.
STALLED_S = 30.0


class Connection(HttpToolsProtocol):
    """See above; what comes beyond `max_connections` is closed unheard."""

    def __init__(self, *args: Any, max_connections: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._owed: asyncio.TimerHandle | None = None  # while the client must send something
        self._unread: asyncio.TimerHandle | None = None  # while it must take something
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a first request, if there is room for one more connection."""
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()
            return
        self._owes(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was waited for."""
        self._owes_nothing()
        self._stop_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; a head is bounded also where it does not end."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._close()
        elif self._idles():
            self._owes(HEAD_S)

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._owed is None:  # a further request of this connection
            self._owes(HEAD_S)
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there; one that is too large is not answered."""
        self._owes_nothing()
        self._in_head = False
        if sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._close()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there, whether somebody reads it or not."""
        if self.cycle is None:
            return  # its head was refused
        self._owes_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The reply is sent; a body that was refused may still come."""
        super().on_response_complete()
        cycle = self.cycle
        if self.transport.is_closing():
            self._close()
        elif cycle.response_complete and cycle.more_body and self._owed is None:
            self._owes(REST_S)

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        self._close()

    def pause_writing(self) -> None:
        """The client takes less than is sent to it."""
        super().pause_writing()
        self._must_read()

    def resume_writing(self) -> None:
        """The client takes it again."""
        self._stop_unread()
        super().resume_writing()

    def _idles(self) -> bool:
        """Whether nothing runs, and nothing else bounds how long that may be so."""
        ended = self.cycle is None or self.cycle.response_complete
        return ended and self._owed is None and self.timeout_keep_alive_task is None

    def _owes(self, limit_s: float) -> None:
        self._owed = self.loop.call_later(limit_s, self._close)

    def _owes_nothing(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
            self._owed = None

    def _must_read(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(STALLED_S, self.transport.abort)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _close(self) -> None:
        """Close, once the client has taken what was sent; it need not be waited for for ever."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._must_read()
