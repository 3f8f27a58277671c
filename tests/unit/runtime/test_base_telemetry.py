"""Traces and metrics never cost a caller time; what is lost is counted."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from services.runtime import metrics
from services.runtime.telemetry import BoundedSpanProcessor, IdTracer, _exporter


class _Exporter(SpanExporter):
    """Collects span names; waits at `gate` as a slow collector would."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.names: list[str] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.gate.wait(10)
        self.names += [span.name for span in spans]
        return self._result


def _tracer(processor: BoundedSpanProcessor) -> trace.Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("t")


def test_without_a_collector_spans_still_have_ids_and_hand_their_trace_on() -> None:
    """A child belongs to its parent's trace, sampled or not as that was; none is recorded."""
    tracer = IdTracer()
    unsampled = trace.SpanContext(7, 8, is_remote=True)
    with tracer.start_as_current_span("parent") as parent:
        child = tracer.start_span("child").get_span_context()
        assert trace.get_current_span() is parent
    far = tracer.start_span("far", trace.set_span_in_context(trace.NonRecordingSpan(unsampled)))
    context, far_context = parent.get_span_context(), far.get_span_context()

    assert context.is_valid
    assert context.trace_flags.sampled
    assert not parent.is_recording()
    assert (child.trace_id, child.span_id != context.span_id) == (context.trace_id, True)
    assert (far_context.trace_id, far_context.trace_flags.sampled) == (7, False)
    assert not trace.get_current_span().get_span_context().is_valid


def test_ended_spans_reach_the_exporter() -> None:
    """A flush waits until all ended spans were handed over."""
    exporter = _Exporter()
    exporter.gate.set()
    processor = BoundedSpanProcessor(exporter)
    for number in range(3):
        _tracer(processor).start_span(f"s{number}").end()

    assert processor.force_flush()
    processor.shutdown()
    assert (exporter.names, processor.dropped) == (["s0", "s1", "s2"], 0)


def test_a_frozen_collector_drops_spans_and_holds_nobody_up() -> None:
    """Ending spans and shutting down stay quick while the exporter hangs; drops are counted."""
    exporter = _Exporter()
    processor = BoundedSpanProcessor(exporter, queue_spans=4, batch_spans=1)
    tracer = _tracer(processor)
    tracer.start_span("stuck").end()
    assert exporter.entered.wait(5)

    started = time.monotonic()
    for _ in range(50):
        tracer.start_span("more").end()
    processor.shutdown()
    took_s = time.monotonic() - started
    exporter.gate.set()

    assert processor.dropped == 46
    assert took_s < 3


def test_a_failing_collector_is_counted() -> None:
    """Spans that the collector refuses are dropped, not kept for ever."""
    exporter = _Exporter(SpanExportResult.FAILURE)
    exporter.gate.set()
    processor = BoundedSpanProcessor(exporter)
    _tracer(processor).start_span("s").end()

    assert processor.force_flush()
    processor.shutdown()
    assert processor.dropped == 1


def test_metrics_are_served_and_made_once() -> None:
    """Asking for a metric twice gives the same one, and /metrics shows it."""
    metrics.counter("echomesh_test_things_total", "Things.", ["kind"]).labels("a").inc(2)
    again = metrics.counter("echomesh_test_things_total", "Things.", ["kind"])
    server = metrics.start_metrics_server("127.0.0.1:0")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    server.close()
    again.labels("a").inc()

    assert 'echomesh_test_things_total{kind="a"} 2.0' in text
    assert "process_resident_memory_bytes" in text


def test_a_metric_keeps_its_type() -> None:
    """One name is one kind of metric."""
    metrics.gauge("echomesh_test_level", "Level.")

    with pytest.raises(TypeError, match="another type"):
        metrics.counter("echomesh_test_level", "Level.")


async def test_a_blocked_event_loop_shows_in_the_lag_metric() -> None:
    """What blocks the loop for 50 ms is seen as about that much lag."""
    task = asyncio.create_task(metrics.watch_event_loop(0.001))
    await asyncio.sleep(0)
    time.sleep(0.05)
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    lag = metrics.histogram(
        "echomesh_event_loop_lag_seconds", "How late the event loop wakes a task."
    )
    total = next(s.value for s in lag.collect()[0].samples if s.name.endswith("_sum"))
    assert total >= 0.04


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver in this process."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.got = threading.Event()

    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Keep the spans' names."""
        for resource in request.resource_spans:
            self.names += [span.name for scope in resource.scope_spans for span in scope.spans]
        self.got.set()
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans_reach_a_real_collector_by_otlp() -> None:
    """With an endpoint set, ended spans arrive there; without one, spans still have ids."""
    collector = _Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    processor = BoundedSpanProcessor(_exporter(f"127.0.0.1:{port}"))
    with _tracer(processor).start_as_current_span("work") as span:
        assert span.get_span_context().is_valid
    assert collector.got.wait(10)
    processor.shutdown()
    server.stop(0)

    assert collector.names == ["work"]
