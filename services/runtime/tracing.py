"""Spans in one place: the names that the field gives their attributes, and links to other traces.

Names follow OpenTelemetry's semantic conventions: RPC (release candidate) and GenAI (development).
No attribute and no event ever holds what a person or a model wrote, only ids, names and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from services.runtime.errors import AppError

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
SERVER_ADDRESS = "server.address"
ERROR_TYPE = "error.type"
USER_ID = "user.id"
CONVERSATION = "gen_ai.conversation.id"
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK_S = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
BATCH_SIZE = "messaging.batch.message_count"
# More links than this say nothing more, and a span with thousands is no use to anybody.
MAX_LINKS = 64

_PARENT = "traceparent"


def rpc_attributes(path: str, target: str = "") -> dict[str, str]:
    """The attributes that a call's span begins with; `target` is the service that is called."""
    attributes = {RPC_SYSTEM: "grpc", RPC_METHOD: path.lstrip("/")}
    return {**attributes, SERVER_ADDRESS: target} if target else attributes


def end_rpc(span: Span, code: grpc.StatusCode, reason: str = "") -> None:
    """Record how a call ended; `reason` is the mesh's own name of the error, if it has one."""
    span.set_attribute(RPC_STATUS, code.name)
    if code is not grpc.StatusCode.OK:
        span.set_attribute(ERROR_TYPE, reason or code.name)
        span.set_status(StatusCode.ERROR, code.name)


@contextmanager
def telling_failure(span: Span) -> Iterator[None]:
    """Record on a span what the body fails with: a reason or a type, never an error's own text."""
    try:
        yield
    except BaseException as error:
        what = error.reason.value if isinstance(error, AppError) else type(error).__name__
        span.set_attribute(ERROR_TYPE, what)
        span.set_status(StatusCode.ERROR, what)
        raise


@contextmanager
def following(path: str, metadata: Iterable[tuple[Any, Any]] | None) -> Iterator[Span]:
    """The span of a call to a worker, below the caller's span that `metadata` names."""
    carrier = {str(key): value for key, value in metadata or () if isinstance(value, str)}
    with (
        trace.get_tracer("echomesh.worker").start_as_current_span(
            path.lstrip("/"),
            context=propagate.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=rpc_attributes(path),
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        telling_failure(span),
    ):
        yield span


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The current span as metadata of a call that the channel factory does not make."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())


def traceparent() -> str | None:
    """The current span, to be kept beside work that is queued; None outside of any."""
    return dict(trace_metadata()).get(_PARENT)


def links(parents: Iterable[str | None]) -> list[Link]:
    """Links to the spans that queued something, each once, at most `MAX_LINKS`."""
    kept = list(dict.fromkeys(parent for parent in parents if parent))[:MAX_LINKS]
    spans = (trace.get_current_span(propagate.extract({_PARENT: parent})) for parent in kept)
    return [Link(span.get_span_context()) for span in spans if span.get_span_context().is_valid]


def event(name: str, attributes: Mapping[str, Any] | None = None) -> None:
    """Note on the current span that something happened now."""
    trace.get_current_span().add_event(f"echomesh.{name}", dict(attributes or {}))
