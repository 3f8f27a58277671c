"""One OpenAI-compatible server over HTTP: a single attempt, and names for all that can go wrong."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import certifi

from services.models.coalesce import WINDOW_S
from services.models.config import Upstream
from services.models.domain import Event, Generation
from services.models.failures import RETRY_AFTER_S, away, bad_response, too_long
from services.models.openai import sse, wire
from services.models.openai.pace import Strained
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger
from services.runtime.tracing import trace_metadata

# A server on the same network accepts a connection within this or not at all.
_CONNECT_S = 5.0
# vLLM's and llama.cpp's servers close an idle connection after 5 s, and a request that meets the
# close is lost: ours are closed before.
_KEEP_S = 3.0
# An error or a list of models is small; a whole reply in one piece is bounded by its own limit.
_MAX_BODY_BYTES = wire.MAX_REPLY_BYTES
_MAX_ERROR_BYTES = 64 << 10
# After the finish reason only the token counts may follow.
_AFTER_FINISH_S = 2.0
# The end mark of a body comes with its last event or right after it.
_END_MARK_S = 0.02
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
_OVERLOADED = frozenset((408, 425, 429))
# Said by servers that load, and by those that are full.
_TOO_BUSY = 503
# How OpenAI, vLLM and llama.cpp say that a prompt does not fit.
_TOO_LONG = ("context_length_exceeded", "maximum context length", "exceed_context_size")

_BROKE_OFF = (wire.BrokeOff, aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)


class Server:
    """The connection pool to one server; close it with `close`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ask_usage = True
        self.streams = True
        """Whether its replies come in pieces, as far as is known."""
        self._url = upstream.url.rstrip("/")
        key = upstream.api_key.get_secret_value() if upstream.api_key else ""
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=min(_CONNECT_S, upstream.timeout_s),
                sock_read=upstream.timeout_s,
            ),
            connector=aiohttp.TCPConnector(
                limit=upstream.concurrency + 1, keepalive_timeout=_KEEP_S, ssl=_trusted(upstream)
            ),
            # What a server would have us keep belongs to one person's request.
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=urlsplit(upstream.url).hostname not in _LOOPBACK,
        )

    async def close(self) -> None:
        """Closes the pool; running calls end with MODEL_UNAVAILABLE."""
        await self._http.close()

    async def models(self, timeout_s: float) -> list[wire.ListedModel]:
        """Returns what the server lists; nothing if it has no such list.

        Raises:
            AppError: it is away or answers nonsense.

        """
        with self._named(self._upstream.name):
            async with asyncio.timeout(timeout_s), self._request("GET", "models") as response:
                if response.status in (404, 405, 501):
                    return []
                await self._accept(response, self._upstream.name)
                body = await _bounded(response, _MAX_BODY_BYTES)
                return wire.listed_models(body)

    async def attempt(
        self, request: Generation, name: str, model: str
    ) -> AsyncGenerator[Event, None]:
        """Streams one reply; closing the iterator closes the connection, which stops the server.

        Args:
            request: what is wanted.
            name: the server's own name of the model.
            model: the catalogue's id of it.

        Raises:
            AppError: MODEL_UNAVAILABLE, MODEL_BAD_RESPONSE, MODEL_REFUSED, CONTEXT_TOO_LONG or
                OVERLOADED.

        """
        reader = wire.Reader(model, "".join(message.content for message in request.messages))
        body = wire.request_body(request, name, usage=self._ask_usage)
        with self._named(model):
            response = await self._post(body)
            try:
                await self._accept(response, model)
                async with aclosing(self._pieces(response, reader)) as pieces:
                    async for data in pieces:
                        if text := reader.text_of(data):
                            yield text
            finally:
                response.release()  # which closes a connection whose answer has not ended
            for event in reader.end():
                yield event

    async def _post(self, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """The head of the answer, from another connection if the first was just being closed.

        Servers close a connection that was used when they like to (llama.cpp's now and then right
        after a reply); a request that meets that gets no word in return, and has done nothing.
        """
        told: dict[str, Any] = {"json": body, "headers": dict(trace_metadata())}
        response: aiohttp.ClientResponse
        try:
            response = await self._request("POST", "chat/completions", **told)
        except aiohttp.ServerDisconnectedError:
            response = await self._request("POST", "chat/completions", **told)
        return response

    def _request(self, method: str, path: str, **told: Any) -> Any:
        return self._http.request(method, f"{self._url}/{path}", allow_redirects=False, **told)

    async def _pieces(
        self, response: aiohttp.ClientResponse, reader: wire.Reader
    ) -> AsyncGenerator[str, None]:
        """The JSON pieces of a reply, whether it is streamed or comes whole."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.streams = kind != "application/json"
        if not self.streams:
            yield await _bounded(response, _MAX_BODY_BYTES)
            return
        if kind != "text/event-stream":
            raise wire.Nonsense("its answer is neither a stream of events nor JSON")
        async with aclosing(self._events(response.content, reader)) as events:
            async for data in events:
                if data.strip() == wire.DONE:
                    await _end_mark(response.content)
                    return
                yield data

    async def _events(
        self, content: aiohttp.StreamReader, reader: wire.Reader
    ) -> AsyncGenerator[str, None]:
        """The events of a stream; comments do not count as a sign of life."""
        parser, clock = sse.Parser(), asyncio.get_running_loop()
        ends = clock.time() + self._upstream.timeout_s
        while chunk := await _read(content, reader, ends):
            for data in parser.feed(chunk):
                yield data
                limit_s = _AFTER_FINISH_S if reader.finished else self._upstream.timeout_s
                ends = clock.time() + min(limit_s, self._upstream.timeout_s)
            if reader.spoke:
                await _gather(content)
        for data in parser.end():
            yield data

    async def _accept(self, response: aiohttp.ClientResponse, model: str) -> None:
        """Raises what an error status means."""
        if 200 <= response.status < 300:
            return
        text = await _bounded(response, _MAX_ERROR_BYTES)
        status = response.status
        get_logger().warning("upstream_error", model=model, status=status, body_bytes=len(text))
        if status in (400, 422) and "stream_options" in text and self._ask_usage:
            self._ask_usage = False
            raise bad_response(model, "it does not count tokens in streams")
        raise _status_error(model, status, text, response.headers.get("retry-after", ""))

    def _named(self, model: str) -> _Errors:
        return _Errors(model)


class _Errors:
    """Turns what aiohttp, the parser and the clock raise into AppErrors that name the model."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, wire.Nonsense):
            raise bad_response(self._model, str(error)) from error
        if isinstance(error, wire.UpstreamSaysError):
            raise bad_response(self._model, "it sent an error in place of an answer") from error
        if isinstance(error, sse.LineTooLong):
            raise bad_response(self._model, "a line of its stream does not end") from error
        if isinstance(error, TimeoutError):
            raise _strained(self._model, "did not answer in time") from error
        if isinstance(error, _BROKE_OFF):
            raise away(self._model, "broke off") from error
        if isinstance(error, aiohttp.ClientError):
            raise away(self._model, "cannot be reached") from error


def _status_error(model: str, status: int, text: str, retry_after: str) -> AppError:
    if status in _OVERLOADED:
        wait_s = float(retry_after) if retry_after.isdigit() else 1.0
        return Strained(
            Reason.OVERLOADED,
            f"{model} is overloaded",
            metadata={"queue": model},
            retry_after_s=min(wait_s, 60.0),
        )
    if status == _TOO_BUSY:
        return _strained(model, f"failed with status {status}")
    if status >= 500:
        return away(model, f"failed with status {status}")
    if any(words in text for words in _TOO_LONG):
        return too_long(model)
    return AppError(
        Reason.MODEL_REFUSED,
        f"{model} refused the request with status {status}",
        metadata={"model": model, "status": str(status)},
    )


def _strained(model: str, what: str) -> Strained:
    return Strained(
        Reason.MODEL_UNAVAILABLE,
        f"{model} {what}",
        metadata={"model": model},
        retry_after_s=RETRY_AFTER_S,
    )


def _trusted(upstream: Upstream) -> ssl.SSLContext | bool:
    """Who may sign the server's certificate.

    The system's authorities, and where no others are named those that browsers know: small images
    have none of their own.
    """
    if urlsplit(upstream.url).scheme != "https":
        return True
    context = ssl.create_default_context()
    if not os.environ.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}:
        context.load_verify_locations(certifi.where())
    return context


async def _read(content: aiohttp.StreamReader, reader: wire.Reader, ends: float) -> bytes:
    """What came, by the loop's time `ends`; empty at the end."""
    try:
        async with asyncio.timeout_at(ends):
            await asyncio.sleep(0)  # what never ceases to come is no sign of life either
            return await content.readany()
    except TimeoutError:
        if not reader.finished:
            raise
        return b""


async def _gather(content: aiohttp.StreamReader) -> None:
    """Let more come, or the end: to wake up for every token costs more than the token itself."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(WINDOW_S):
            await content.wait_eof()


async def _end_mark(content: aiohttp.StreamReader) -> None:
    """Read to the end of the body, so that its connection can be used again.

    What fails then takes nothing from the reply.
    """
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_END_MARK_S):
            while not content.at_eof():
                await content.readany()


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> str:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise wire.Nonsense("its answer is too large")
    return body.decode("utf-8", errors="replace")
