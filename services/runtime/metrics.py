"""Prometheus metrics: one registry for each process, served at /metrics on its own address."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from opentelemetry.trace import Span, get_current_span
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# Seconds; from a cache hit to the longest deadline we give by default.
LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
# Seconds between two looks at the event loop: fine enough to see a 10 ms promise broken.
_LAG_PERIOD_S = 0.25

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_lock = threading.Lock()
_made: dict[str, Counter | Gauge | Histogram] = {}


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """Return the process's counter of that name; asking again gives the same one."""
    with _lock:
        metric = _made.get(name)
        if metric is None:
            metric = _made[name] = Counter(name, documentation, labels, registry=REGISTRY)
    if not isinstance(metric, Counter):
        raise TypeError(f"metric {name} exists with another type")
    return metric


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
    """Return the process's gauge of that name; asking again gives the same one."""
    with _lock:
        metric = _made.get(name)
        if metric is None:
            metric = _made[name] = Gauge(name, documentation, labels, registry=REGISTRY)
    if not isinstance(metric, Gauge):
        raise TypeError(f"metric {name} exists with another type")
    return metric


def histogram(
    name: str,
    documentation: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = LATENCY_BUCKETS_S,
) -> Histogram:
    """Return the process's histogram of that name; asking again gives the same one."""
    with _lock:
        metric = _made.get(name)
        if metric is None:
            metric = _made[name] = Histogram(
                name, documentation, labels, registry=REGISTRY, buckets=buckets
            )
    if not isinstance(metric, Histogram):
        raise TypeError(f"metric {name} exists with another type")
    return metric


def exemplar(span: Span | None = None) -> dict[str, str] | None:
    """What leads from a number to one trace behind it: the id of a span's (unset: the current).

    None where there is no trace. Shown to scrapers that ask for OpenMetrics.
    """
    context = (span or get_current_span()).get_span_context()
    return {"trace_id": format(context.trace_id, "032x")} if context.is_valid else None


class _Asked(Collector):
    """Metrics that are read from what they tell of, each time somebody scrapes."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known once they are read."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        return self._read()


def at_scrape(read: Callable[[], Iterable[Metric]]) -> Callable[[], None]:
    """Show what `read` returns at every scrape; returns what ends that.

    It is called on another thread than the event loop's and must only look.
    """
    collector = _Asked(read)
    REGISTRY.register(collector)
    return lambda: REGISTRY.unregister(collector)


class _HttpServer(Protocol):
    server_port: int

    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


class MetricsServer:
    """A running /metrics endpoint; `port` is the one it listens on."""

    def __init__(self, server: _HttpServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)


def start_metrics_server(address: str) -> MetricsServer:
    """Serve the registry at `http://address/metrics`; port 0 takes a free one.

    Raises `OSError` if the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    server, thread = start_http_server(int(port), host.strip("[]"), registry=REGISTRY)
    return MetricsServer(server, thread)


async def watch_event_loop(period_s: float = _LAG_PERIOD_S) -> None:
    """Record how late the event loop wakes, until cancelled: what blocks it shows here."""
    lag = histogram("echomesh_event_loop_lag_seconds", "How late the event loop wakes a task.")
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + period_s
        await asyncio.sleep(period_s)
        lag.observe(max(0.0, loop.time() - due))
