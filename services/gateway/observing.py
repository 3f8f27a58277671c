"""One span, one metric and one place for each request, whatever route it takes."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from services.gateway.errors import error_response
from services.runtime import metrics
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger
from services.runtime.metrics import exemplar

_TRACER = trace.get_tracer("echomesh.gateway")
_LATENCY = metrics.histogram(
    "echomesh_http_server_seconds",
    "Time of an HTTP request, to the last byte of its response.",
    ("route", "method", "status"),
)
_RUNNING = metrics.gauge("echomesh_http_server_requests", "HTTP requests that run now.")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID_HEADER = b"x-request-id"
_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})


class Observed:
    """ASGI middleware: trace, metric, limit and the last catch of what goes wrong."""

    def __init__(self, app: Any, *, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        seen = _Seen(scope)
        context = propagate.extract(_carrier(scope))
        self._running += 1
        _RUNNING.set(self._running)
        try:
            with _TRACER.start_as_current_span(
                scope["method"],
                context=context,
                kind=SpanKind.SERVER,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    await self._serve(scope, receive, seen.sender(send, span))
                finally:
                    seen.end(span)
        finally:
            self._running -= 1
            _RUNNING.set(self._running)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if self._running > self._max_requests and scope["path"] != "/health":
            await error_response(_full())(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            # The client has been told as much as it may know.
            get_logger().error("request_failed", exc_info=error)


class _Sender:
    """Passes a response on, noting its status and adding the trace's id."""

    def __init__(self, send: Any, seen: _Seen, trace_id: str) -> None:
        self._send = send
        self._seen = seen
        self._trace_id = trace_id.encode()

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._seen.status = message["status"]
            message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, self._trace_id)]
        await self._send(message)


class _Seen:
    """What is known of one request at its end."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope
        self._started = time.monotonic()
        self.status = 0

    def sender(self, send: Any, span: trace.Span) -> _Sender:
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        return _Sender(send, self, trace_id)

    def end(self, span: trace.Span) -> None:
        """Name the span by its route, and count the request under it."""
        route, method = _route(self._scope), self._scope["method"]
        method = method if method in _METHODS else "OTHER"
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", self.status)
        if self.status >= 500 or not self.status:
            span.set_status(StatusCode.ERROR)
        elapsed_s = time.monotonic() - self._started
        labels = (route, method, str(self.status))
        _LATENCY.labels(*labels).observe(elapsed_s, exemplar(span))


def _carrier(scope: Any) -> dict[str, str]:
    """What a request says of the trace that it belongs to."""
    told = ((name, value) for name, value in scope["headers"] if name in _TRACE_HEADERS)
    return {name.decode(): value.decode("latin-1") for name, value in told}


def _route(scope: Any) -> str:
    """The path pattern that was matched: few, whatever clients send."""
    route = scope.get("route")
    return str(getattr(route, "path", "")) or "unmatched"


def _full() -> AppError:
    return AppError(
        Reason.OVERLOADED, "too many requests at once; try again later", retry_after_s=1.0
    )
