"""The collector's shipped configuration, run in Jaeger's own binary in front of a Jaeger."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode, Tracer, set_span_in_context

from tests.support.jaeger import START_S, Jaeger, accepts, binary, free_ports, running
from tests.support.mesh import until
from tests.support.traced import trace_id_of

CONFIG = Path(__file__).parents[2] / "charts" / "echomesh" / "files" / "collector.yaml"
WAIT_S = 60
SLOW_NS = 1_500_000_000

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tracer(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracer]:
    """An application whose spans go through the collector, which keeps nothing by chance."""
    program = binary()
    if program is None:
        pytest.skip("set ECHOMESH_JAEGER_BINARY to Jaeger's program: it is a collector too")
    (port,) = free_ports(1)
    env = {
        "OTLP_ENDPOINT": f"127.0.0.1:{port}",
        "JAEGER_ENDPOINT": urlsplit(jaeger.otlp).netloc,
        "DECISION_WAIT": "1s",
        "SAMPLED_PERCENT": "0",
    }
    with running(program, CONFIG, tmp_path_factory.mktemp("collector") / "log", env):
        until(lambda: accepts(port), START_S, "the collector's start")
        provider = TracerProvider(resource=Resource({"service.name": "sampled"}))
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        yield provider.get_tracer("test")
        provider.shutdown()


def send(
    tracer: Tracer,
    *,
    took_ns: int = 1_000_000,
    error: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> str:
    """Send a trace of two spans, of which the inner one is as asked; its id."""
    now = time.time_ns()
    outer = tracer.start_span("outer", start_time=now - took_ns)
    below = set_span_in_context(outer)
    inner = tracer.start_span("inner", below, attributes=attributes, start_time=now - took_ns)
    if error:
        inner.set_status(StatusCode.ERROR, "UNAVAILABLE")
    inner.end(now)
    outer.end(now)
    return trace_id_of(outer)


def kept(jaeger: Jaeger, trace_id: str) -> None:
    """Wait until Jaeger has both spans of a trace."""
    until(lambda: len(jaeger.trace(trace_id)) == 2, WAIT_S, "the arrival of a trace to be kept")


def test_errors_slow_requests_and_replies_that_lack_a_part_are_always_kept(
    jaeger: Jaeger, tracer: Tracer
) -> None:
    for trace_id in (
        send(tracer, error=True),
        send(tracer, took_ns=SLOW_NS),
        send(tracer, attributes={"echomesh.degraded": ["memory: late"]}),
    ):
        kept(jaeger, trace_id)


def test_of_the_others_only_the_set_share_is_kept(jaeger: Jaeger, tracer: Tracer) -> None:
    """Decided in the order they came: with a later one there, the earlier ones are not."""
    ordinary = [send(tracer) for _ in range(20)]
    kept(jaeger, send(tracer, error=True))
    assert [trace_id for trace_id in ordinary if jaeger.trace(trace_id)] == []


def test_a_span_that_comes_after_its_traces_decision_shares_it(
    jaeger: Jaeger, tracer: Tracer
) -> None:
    """A stream's last span may come a minute after its first."""
    outer = tracer.start_span("outer")
    inner = tracer.start_span("inner", set_span_in_context(outer))
    inner.set_status(StatusCode.ERROR, "UNAVAILABLE")
    inner.end()
    until(lambda: len(jaeger.trace(trace_id_of(outer))) == 1, WAIT_S, "the first span's arrival")
    outer.end()
    kept(jaeger, trace_id_of(outer))
