"""The client's span, so that a trace begins where the call begins.

With `opentelemetry-api` installed the span is a real one and a child of the current span.
Without it there is no span, only a fresh W3C trace context for the services to continue.
One call of the client is one span, however often it is tried, and what the call itself needs
(signing in, looking addresses up) is below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

from echomesh._errors import EchomeshError

_HAS_OPENTELEMETRY = importlib.util.find_spec("opentelemetry") is not None
_trace_id: ContextVar[str] = ContextVar("echomesh_trace_id", default="")


class ClientSpan(Protocol):
    """One call of the client."""

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What carries the trace context to a service."""
        ...

    @property
    def trace_id(self) -> str:
        """What finds the call in the logs of services; empty if they are told none."""
        ...

    def below(self) -> contextlib.AbstractContextManager[None]:
        """Make it the parent of the calls made inside; hold it over no `yield`."""
        ...

    def tried_again(self, error: EchomeshError) -> None:
        """Note that an attempt failed and another one follows."""
        ...

    def answered(self) -> None:
        """End it: the answer is whole, and whoever leaves from now on cancels nothing."""
        ...


@contextlib.contextmanager
def client_span(method: str) -> Iterator[ClientSpan]:
    """Yield the span of a call to `package.Service/Method`; it ends as the body does."""
    span = _Recorded(method) if _HAS_OPENTELEMETRY else _Bare()
    try:
        yield span
        span.answered()
    except EchomeshError as error:
        error.trace_id = error.trace_id or span.trace_id
        span.failed(error.code.name, error.reason)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        span.failed("CANCELLED", "")
        raise
    except BaseException as error:
        span.failed("UNKNOWN", type(error).__name__)
        raise
    finally:
        span.end()


class _Bare:
    """Only the ids that the services continue."""

    def __init__(self) -> None:
        self.trace_id = _trace_id.get() or secrets.token_hex(16)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        return [("traceparent", f"00-{self.trace_id}-{secrets.token_hex(8)}-01")]

    @contextlib.contextmanager
    def below(self) -> Iterator[None]:
        token = _trace_id.set(self.trace_id)
        try:
            yield
        finally:
            _trace_id.reset(token)

    def tried_again(self, error: EchomeshError) -> None:
        """Nobody would see it."""

    def answered(self) -> None:
        """Nobody would see it."""

    def failed(self, code: str, reason: str) -> None:
        """Nobody would see it."""

    def end(self) -> None:
        """There is nothing to end."""


class _Recorded:
    """A span of the application's own tracer provider."""

    def __init__(self, method: str) -> None:
        from opentelemetry import trace

        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        self._span = trace.get_tracer("echomesh").start_span(
            method, kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        self._context = trace.set_span_in_context(self._span)
        self._settled = False
        known = self._span.get_span_context()
        self.trace_id = trace.format_trace_id(known.trace_id) if known.is_valid else ""

    @property
    def metadata(self) -> list[tuple[str, str]]:
        from opentelemetry import propagate

        carrier: dict[str, str] = {}
        propagate.inject(carrier, self._context)
        return list(carrier.items())

    @contextlib.contextmanager
    def below(self) -> Iterator[None]:
        from opentelemetry import context

        token = context.attach(self._context)
        try:
            yield
        finally:
            context.detach(token)

    def tried_again(self, error: EchomeshError) -> None:
        attributes = {"error.type": error.reason or error.code.name}
        self._span.add_event("echomesh.retry", attributes)

    def answered(self) -> None:
        self._settle("OK")
        self.end()

    def failed(self, code: str, reason: str) -> None:
        from opentelemetry.trace import StatusCode

        if self._settle(code):
            self._span.set_attribute("error.type", reason or code)
            self._span.set_status(StatusCode.ERROR, code)

    def _settle(self, code: str) -> bool:
        """Record how the call ended; whether it had not ended before."""
        first, self._settled = not self._settled, True
        if first:
            self._span.set_attribute("rpc.response.status_code", code)
        return first

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()
