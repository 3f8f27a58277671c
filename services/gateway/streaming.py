"""A response of server-sent events that ends what makes them as soon as its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response

_HEAD = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    # nginx would hold events back to fill its buffer.
    "x-accel-buffering": "no",
}


class EventStream(Response):
    """Sends `first` and then what `events` yields, each piece at once.

    The response begins only when `first` is there: what fails before is an ordinary error. When
    the client goes away `events` is closed, which stops the generation; so it is when the client
    has not taken the whole stream within `limit_s` seconds.
    """

    def __init__(
        self,
        first: bytes,
        events: AsyncGenerator[bytes, None],
        headers: dict[str, str],
        *,
        limit_s: float,
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self.headers.update(_HEAD)
        self._first = first
        self._events = events
        self._limit_s = limit_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the stream."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait(
                {sending, leaving}, timeout=self._limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await sending

    async def _send(self, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async with aclosing(self._events) as events:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in events:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
