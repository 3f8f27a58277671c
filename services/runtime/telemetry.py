"""Traces: spans always have ids (errors and logs quote them); they leave only to a set collector.

The exporter works on a thread behind a bounded queue. A collector that is away or slow costs
spans, which are counted, and never time: neither in a request nor when the process stops.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span

from echomesh import __version__
from services.runtime.metrics import counter
from services.runtime.settings import ServiceSettings

TRACER_NAME = "echomesh"
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
# About 4 MB of spans: a few seconds at full load on one machine.
_QUEUE_SPANS = 4096
# One export message stays well under gRPC's 4 MiB.
_BATCH_SPANS = 512
_BATCH_WAIT_S = 0.5
_EXPORT_TIMEOUT_S = 2.0
# What is left may still leave when the process stops, but not longer than this.
_FLUSH_TIMEOUT_S = 1.0


class BoundedSpanProcessor(SpanProcessor):
    """Hands ended spans to `exporter` on a daemon thread; what does not fit is counted."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        queue_spans: int = _QUEUE_SPANS,
        batch_spans: int = _BATCH_SPANS,
        batch_wait_s: float = _BATCH_WAIT_S,
    ) -> None:
        self._exporter = exporter
        self._queue: queue.Queue[ReadableSpan] = queue.Queue(queue_spans)
        self._batch_spans = batch_spans
        self._batch_wait_s = batch_wait_s
        self._stopping = threading.Event()
        self._flush = threading.Event()
        self._dropped = counter("echomesh_spans_dropped_total", "Spans that no collector took.")
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        """Do nothing: a span counts when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, or drop it when the queue is full."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        try:
            self._queue.put_nowait(span)
        except queue.Full:
            self._drop(1)
        if self._queue.qsize() >= self._batch_spans:
            self._flush.set()

    def force_flush(self, timeout_millis: int = 2000) -> bool:
        """Ask for an export now and wait until the queue is empty; False: it was not in time."""
        self._flush.set()
        waited = threading.Event()
        for _ in range(max(1, timeout_millis // 10)):
            if self._queue.unfinished_tasks == 0:
                return True
            waited.wait(0.01)
        return False

    def shutdown(self) -> None:
        """Export what is left, for at most a second, and let go of the collector."""
        self._stopping.set()
        self._flush.set()
        self._thread.join(_FLUSH_TIMEOUT_S)
        threading.Thread(target=self._exporter.shutdown, daemon=True).start()

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._queue.empty()):
            self._flush.wait(self._batch_wait_s)
            self._flush.clear()
            while batch := self._take():
                self._export(batch)
                for _ in batch:
                    self._queue.task_done()

    def _take(self) -> Sequence[ReadableSpan]:
        batch: list[ReadableSpan] = []
        try:
            while len(batch) < self._batch_spans:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _export(self, batch: Sequence[ReadableSpan]) -> None:
        try:
            result = self._exporter.export(batch)
        except Exception:  # an exporter's defect must not end the thread; the drop is counted
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._drop(len(batch))

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._dropped.inc(count)


class IdTracer(trace.Tracer):
    """Spans that are only their ids, for a process without a collector: they cost next to nothing.

    Whether a trace is sampled is handed on as it came, so that a service that has a collector
    exports its part.
    """

    def __init__(self) -> None:
        self._ids = RandomIdGenerator()

    def start_span(self, name: str, context: Context | None = None, *_: Any, **__: Any) -> Span:
        """Return a span of the context's trace, or of a new one."""
        parent = trace.get_current_span(context).get_span_context()
        return trace.NonRecordingSpan(
            trace.SpanContext(
                trace_id=parent.trace_id if parent.is_valid else self._ids.generate_trace_id(),
                span_id=self._ids.generate_span_id(),
                is_remote=False,
                trace_flags=parent.trace_flags if parent.is_valid else _SAMPLED,
                trace_state=parent.trace_state,
            )
        )

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # their decorator adds nothing to ours
        self, name: str, context: Context | None = None, *_: Any, **__: Any
    ) -> Iterator[Span]:
        """Make such a span the current one."""
        token = attach(trace.set_span_in_context(span := self.start_span(name, context)))
        try:
            yield span
        finally:
            detach(token)


class IdTracerProvider(trace.TracerProvider):
    """Gives out `IdTracer`s."""

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        """Return the tracer, the same for all names."""
        return IdTracer()

    def shutdown(self) -> None:
        """Do nothing: no span waits."""


class Telemetry(Protocol):
    """What `setup_telemetry` returns."""

    def shutdown(self) -> None:
        """Let the last spans go; takes at most a second."""
        ...


def setup_telemetry(name: str, settings: ServiceSettings) -> Telemetry:
    """Install the process's tracer provider for service `name`; call once, before the server.

    `trace.get_tracer(TRACER_NAME)` then makes spans that have ids. They are recorded, and exported
    by OTLP over gRPC, only if `settings.otlp_endpoint` is set (`http://host:4317` or `host:4317`:
    plain; `https://`: TLS).
    """
    if settings.otlp_endpoint:
        return export_spans(name, settings.otlp_endpoint)
    bare = IdTracerProvider()
    trace.set_tracer_provider(bare)
    return bare


def export_spans(name: str, endpoint: str) -> Telemetry:
    """Install a provider whose spans leave for `endpoint`; a worker calls it, see above."""
    provider = TracerProvider(resource=_resource(name), shutdown_on_exit=False)
    provider.add_span_processor(BoundedSpanProcessor(_exporter(endpoint)))
    trace.set_tracer_provider(provider)
    return provider


def _resource(name: str) -> Resource:
    """Who sends the spans: the service, its version, and which of its replicas."""
    return Resource.create(
        {
            "service.name": name,
            "service.namespace": "echomesh",
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )


def _exporter(endpoint: str) -> SpanExporter:
    # Imported only where traces leave: it costs every process 0.15 s of its start.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    insecure = not endpoint.startswith("https://")
    return OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=_EXPORT_TIMEOUT_S)
