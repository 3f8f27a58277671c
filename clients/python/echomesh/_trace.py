"""The client's span, so that a trace begins where the call begins.

With `opentelemetry-api` installed the span is a real one and a child of the current span.
Without it there is no span, only a fresh W3C trace context for the services to continue.
"""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
from collections.abc import Iterator

_HAS_OPENTELEMETRY = importlib.util.find_spec("opentelemetry") is not None


@contextlib.contextmanager
def client_span(name: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the metadata that carries the trace context."""
    if not _HAS_OPENTELEMETRY:
        yield [("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01")]
        return
    with _opentelemetry_span(name) as context:
        yield context


@contextlib.contextmanager
def _opentelemetry_span(name: str) -> Iterator[list[tuple[str, str]]]:
    from opentelemetry import propagate, trace

    span = trace.get_tracer("echomesh").start_span(name, kind=trace.SpanKind.CLIENT)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    try:
        yield list(carrier.items())
    except BaseException as error:
        span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        span.end()
