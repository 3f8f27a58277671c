"""What surrounds every call on a server, once for all four kinds of method.

From the outside in: span and metrics, error mapping, deadline, identity and policy, admission,
validation, then the handler. Responses of streams go out by `context.write`, not by yielding:
a cancelled call then unwinds its handler at once and in the right context.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeAlias

import grpc
from opentelemetry import propagate, trace

from services.runtime import metrics
from services.runtime.authenticate import Authenticator
from services.runtime.deadline import MAX_DEADLINE_S, deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.identity import acting_as
from services.runtime.logs import get_logger
from services.runtime.metrics import exemplar
from services.runtime.policy import Rule, rule_for
from services.runtime.status import CODES, DETAILS_KEY, to_status
from services.runtime.tracing import end_rpc, rpc_attributes
from services.runtime.validation import MALFORMED, checked

# For calls that come without a deadline.
DEFAULT_DEADLINE_S = 60.0
# A client counts from when it sent a call, we from when it came: its deadline passes first.
_TRAVEL_S = 0.1
# Health answers whatever the load, and a balancer watches it for as long as it is connected: it
# is not shed, has no deadline and makes no span.
_HEALTH = "/grpc.health.v1.Health/"
_TRACER = trace.get_tracer("echomesh.server")
_LATENCY = metrics.histogram(
    "echomesh_rpc_server_seconds", "Time to answer a call.", ("method", "code")
)
_IN_FLIGHT = metrics.gauge("echomesh_rpc_server_in_flight", "Calls being answered.")

Handler = Callable[[Any, Any], Any]
Body = Callable[[], Awaitable[Any]]
Continuation: TypeAlias = (
    "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]"
)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of a listener."""

    def __init__(
        self, authenticator: Authenticator, max_in_flight: int, *, debug: bool = False
    ) -> None:
        self._authenticator = authenticator
        self._max_in_flight = max_in_flight
        self._debug = debug
        self._in_flight = 0
        self._watches: set[asyncio.Future[Any]] = set()
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the method's handler and wrap it; an unknown method stays UNIMPLEMENTED."""
        path = handler_call_details.method
        if path not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            self._wrapped[path] = self._wrap(path, handler)
        return self._wrapped[path]

    def end_watches(self) -> None:
        """End all watches of health, which balancers keep for as long as they are connected."""
        for watch in self._watches:
            watch.cancel()

    def _wrap(
        self, path: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        rule = rule_for(path, debug=self._debug)
        make, behavior = _kind(handler)
        run = self._probe if path.startswith(_HEALTH) else self._run

        async def unary_response(request: Any, context: Any) -> Any:
            return await run(
                path, rule, context, lambda: _once(behavior, _incoming(request), context)
            )

        async def stream_response(request: Any, context: Any) -> None:
            await run(
                path, rule, context, lambda: _write_all(behavior, _incoming(request), context)
            )

        return make(  # type: ignore[no-any-return]
            stream_response if handler.response_streaming else unary_response,
            request_deserializer=_safe(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    async def _probe(self, path: str, rule: Rule, context: Any, body: Body) -> Any:
        """Answer a health check or watch with none of what surrounds other calls."""
        watch = asyncio.ensure_future(body())
        self._watches.add(watch)
        try:
            await asyncio.wait({watch})
            return None if watch.cancelled() else watch.result()
        except AppError as error:
            await _send(context, error, trace_id())
        finally:
            self._watches.discard(watch)
            watch.cancel()

    async def _run(self, path: str, rule: Rule, context: Any, body: Body) -> Any:
        metadata = _text_metadata(context)
        parent = propagate.extract(metadata)
        started = time.monotonic()
        with (
            _TRACER.start_as_current_span(
                path.lstrip("/"),
                context=parent,
                kind=trace.SpanKind.SERVER,
                attributes=rpc_attributes(path),
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
        ):
            outcome = _Outcome(path, span, started)
            try:
                answer = await self._inside(rule, context, metadata, body)
            except asyncio.CancelledError:
                outcome.cancelled(context.time_remaining())
                raise
            except Exception as error:
                await outcome.abort(context, error)
            else:
                outcome.done(grpc.StatusCode.OK)
                return answer

    async def _inside(self, rule: Rule, context: Any, metadata: dict[str, str], body: Body) -> Any:
        asked_s = context.time_remaining()
        allowed_s = DEFAULT_DEADLINE_S if asked_s is None else min(asked_s, MAX_DEADLINE_S)
        with deadline_scope(allowed_s):
            async with asyncio.timeout(allowed_s):
                subject = await self._authenticator.authenticate(
                    rule, metadata, context.auth_context
                )
                with acting_as(subject.identity, subject.token), self._admitted():
                    return await body()

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._in_flight >= self._max_in_flight:
            raise AppError(
                Reason.OVERLOADED,
                "too many calls at once; try again later",
                metadata={"queue": "calls"},
                retry_after_s=1.0,
            )
        self._in_flight += 1
        _IN_FLIGHT.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            _IN_FLIGHT.dec()


class _Outcome:
    """Records how a call ended: on its span, in the metrics, and to the client."""

    def __init__(self, path: str, span: trace.Span, started: float) -> None:
        self._path = path
        self._span = span
        self._started = started

    def done(self, code: grpc.StatusCode, reason: str = "") -> None:
        """Record the code, and the reason of an error."""
        end_rpc(self._span, code, reason)
        elapsed = time.monotonic() - self._started
        _LATENCY.labels(self._path, code.name).observe(elapsed, exemplar(self._span))

    def cancelled(self, remaining_s: float | None) -> None:
        """The client went away, or its deadline passed first."""
        late = remaining_s is not None and remaining_s <= _TRAVEL_S
        self.done(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED)

    async def abort(self, context: Any, error: Exception) -> None:
        """Send the status of an error; never an unexpected error's own text."""
        if isinstance(error, grpc.aio.AbortError):
            self.done(context.code() or grpc.StatusCode.UNKNOWN)
            raise error
        known = _known(error)
        if known.reason is Reason.INTERNAL:
            get_logger().error("rpc_failed", method=self._path, exc_info=error)
        self.done(CODES[known.reason], known.reason.value)
        await _send(context, known, trace_id(self._span))


def _text_metadata(context: Any) -> dict[str, str]:
    """The text values by key; those of a repeated key are joined by a comma, as HTTP has it.

    With the last one alone, a proxy in front could check one authorization and we another.
    """
    joined: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


async def _send(context: Any, error: AppError, trace_id: str) -> None:
    code, status = to_status(error, trace_id)
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code, error.message, trailing_metadata=details)


def trace_id(span: trace.Span | None = None) -> str:
    """The trace id of a span (unset: the current one) as 32 hexadecimal digits."""
    context = (span or trace.get_current_span()).get_span_context()
    return format(context.trace_id, "032x")


def _known(error: Exception) -> AppError:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        # What a task group makes of the one failure that ended it.
        error = error.exceptions[0]
    if isinstance(error, AppError):
        return error
    if isinstance(error, TimeoutError):
        return AppError(Reason.DEADLINE_EXCEEDED, "the deadline has passed")
    return AppError(Reason.INTERNAL, "internal error")


def _kind(handler: grpc.RpcMethodHandler[Any, Any]) -> tuple[Any, Handler]:
    """The constructor of a handler's kind, and its behaviour."""
    kinds: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    return kinds[bool(handler.request_streaming), bool(handler.response_streaming)]


def _safe(deserialize: Any) -> Any:
    """A deserializer that never raises: gRPC would send the exception's text to the client."""

    def safely(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:
            return MALFORMED

    return safely


def _incoming(request: Any) -> Any:
    """The request, or the stream of requests, each checked against the rules of its proto."""
    return _each(request) if isinstance(request, AsyncIterator) else checked(request)


async def _each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield checked(request)


async def _once(behavior: Handler, request: Any, context: Any) -> Any:
    return await behavior(request, context)


async def _write_all(behavior: Handler, request: Any, context: Any) -> None:
    result = behavior(request, context)
    if not inspect.isasyncgen(result):
        # A handler that writes by itself, as gRPC's own health service does.
        await result
        return
    async with aclosing(result) as responses:
        async for response in responses:
            await context.write(response)


__all__ = ["CallInterceptor", "trace_id"]
