"""The client's span: how it ends, what is below it, and what there is without OpenTelemetry."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from echomesh import EchomeshError, _trace

METHOD = "echomesh.routing.v1.ChatService/Chat"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that the application's provider gets."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def told(span: ReadableSpan) -> tuple[object, object, trace.StatusCode]:
    """The code, the error's type and the status of a span."""
    said = span.attributes or {}
    return said.get("rpc.response.status_code"), said.get("error.type"), span.status.status_code


def test_a_call_that_is_answered_is_one_span_however_often_it_was_tried(
    spans: InMemorySpanExporter,
) -> None:
    lost = EchomeshError(grpc.StatusCode.UNAVAILABLE, "the stream broke off")
    with _trace.client_span(METHOD) as span:
        span.tried_again(lost)
    assert told(only(spans)) == ("OK", None, trace.StatusCode.UNSET)
    assert [event.name for event in only(spans).events] == ["echomesh.retry"]


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (
            EchomeshError(grpc.StatusCode.NOT_FOUND, "", reason="NOT_FOUND"),
            "NOT_FOUND",
            "NOT_FOUND",
        ),
        (EchomeshError(grpc.StatusCode.UNAVAILABLE, "away"), "UNAVAILABLE", "UNAVAILABLE"),
        (asyncio.CancelledError(), "CANCELLED", "CANCELLED"),
        (GeneratorExit(), "CANCELLED", "CANCELLED"),
        (ValueError("a defect"), "UNKNOWN", "ValueError"),
    ],
)
def test_a_call_that_fails_or_is_left_says_so_on_its_span(
    spans: InMemorySpanExporter, error: BaseException, code: str, kind: str
) -> None:
    with pytest.raises(type(error)), _trace.client_span(METHOD):
        raise error
    assert told(only(spans)) == (code, kind, trace.StatusCode.ERROR)


def test_who_leaves_after_the_answer_cancels_nothing(spans: InMemorySpanExporter) -> None:
    """The span has ended with the answer already, not when somebody cleans up."""
    with pytest.raises(GeneratorExit), _trace.client_span(METHOD) as span:
        span.answered()
        assert told(only(spans))[0] == "OK"
        raise GeneratorExit
    assert told(only(spans)) == ("OK", None, trace.StatusCode.UNSET)


def test_what_a_call_needs_is_below_its_span_and_the_application_stays_above(
    spans: InMemorySpanExporter,
) -> None:
    with _trace.client_span(METHOD) as chat:
        with chat.below(), _trace.client_span("auth/ExchangeApiKey"):
            pass
        assert not trace.get_current_span().get_span_context().is_valid
    exchange, outer = spans.get_finished_spans()
    assert exchange.parent is not None
    assert outer.context is not None
    assert exchange.parent.span_id == outer.context.span_id


def test_without_opentelemetry_a_call_and_what_it_needs_still_share_a_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_trace, "_HAS_OPENTELEMETRY", False)

    def ids(span: _trace.ClientSpan) -> list[str]:
        ((name, value),) = span.metadata
        assert name == "traceparent"
        return value.split("-")

    with _trace.client_span(METHOD) as chat:
        with chat.below(), _trace.client_span("auth/ExchangeApiKey") as exchange:
            below = ids(exchange)
        above = ids(chat)
    with _trace.client_span(METHOD) as other:
        elsewhere = ids(other)
    assert below[1] == above[1] != elsewhere[1]
    assert below[2] != above[2]
    assert (above[0], above[3]) == ("00", "01")
