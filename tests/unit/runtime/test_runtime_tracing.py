"""Links to what queued a job, the caller's trace in a worker, and failures without their text."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.runtime import tracing
from services.runtime.errors import AppError, Reason
from services.runtime.telemetry import IdTracer

SECRET = "the key is under the pot"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of this test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_job_is_linked_to_each_span_that_queued_it_once_and_to_a_bounded_number() -> None:
    tracer = IdTracer()
    queued = [tracer.start_span("call") for _ in range(tracing.MAX_LINKS + 5)]
    parents: list[str | None] = [None, "", "no traceparent"]
    for span in queued:
        with trace.use_span(span):
            parents += [tracing.traceparent()] * 2
    found = [link.context.span_id for link in tracing.links(parents)]
    assert found == [s.get_span_context().span_id for s in queued][: len(found)]
    assert tracing.MAX_LINKS - 1 <= len(found) <= tracing.MAX_LINKS


def test_outside_of_any_span_nothing_is_kept_beside_a_job() -> None:
    assert tracing.traceparent() is None


def test_a_workers_span_goes_on_with_the_trace_of_its_caller(spans: InMemorySpanExporter) -> None:
    caller = IdTracer().start_span("call")
    with trace.use_span(caller):
        metadata = tracing.trace_metadata()
    with tracing.following("echomesh.worker.v1.EngineWorkerService/Generate", metadata):
        pass
    span = only(spans)
    assert span.parent is not None
    assert span.parent.span_id == caller.get_span_context().span_id
    assert span.status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AppError(Reason.MODEL_BAD_RESPONSE, SECRET), "MODEL_BAD_RESPONSE"),
        (ValueError(SECRET), "ValueError"),
        (asyncio.CancelledError(SECRET), "CancelledError"),
    ],
)
def test_a_failure_is_told_by_its_reason_and_never_by_its_text(
    spans: InMemorySpanExporter, error: BaseException, told: str
) -> None:
    """An error's text may quote what it failed at: what somebody said."""
    with pytest.raises(type(error)), tracing.following("worker/Generate", ()):
        raise error
    span = only(spans)
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, told)
    assert SECRET not in span.to_json()
