"""Trace collectors: one here that shows as a tree what was exported, and two that are no use."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)


@dataclass(frozen=True)
class SeenSpan:
    """One exported span; `kind` is "client", "server", "consumer" or "internal".

    `attributes` are those of the span, `events` its events with theirs, `links` the spans
    (trace id, span id) that it is linked to.
    """

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    error: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    links: Sequence[tuple[str, str]] = ()

    @property
    def label(self) -> str:
        """`service kind Name/Method`."""
        return f"{self.service} {self.kind} {self.name}"

    def texts(self) -> Iterator[str]:
        """Everything that the span says in words."""
        yield self.name
        for said in (self.attributes, *(attributes for _, attributes in self.events)):
            yield from map(str, said.values())


_KINDS = {1: "internal", 2: "server", 3: "client", 5: "consumer"}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span it is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[SeenSpan] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Take a batch."""
        for group in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in group.resource.attributes}
            service = attributes.get("service.name", "").removeprefix("echomesh-")
            for scope in group.scope_spans:
                for span in scope.spans:
                    self._keep(service, span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def _keep(self, service: str, span: Any) -> None:
        seen = SeenSpan(
            service=service,
            name=short_name(span.name),
            kind=_KINDS.get(span.kind, str(span.kind)),
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            error=span.status.message if span.status.code == 2 else "",
            attributes=_values(span.attributes),
            events=[(event.name, _values(event.attributes)) for event in span.events],
            links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        )
        with self._lock:
            self._spans.append(seen)

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """The spans of a trace that have arrived."""
        with self._lock:
            return [s for s in self._spans if s.trace_id == trace_id]

    def spans(self) -> list[SeenSpan]:
        """Every span that has arrived."""
        with self._lock:
            return list(self._spans)

    def labelled(self, label: str) -> list[SeenSpan]:
        """All spans with that label, of whatever trace."""
        with self._lock:
            return [s for s in self._spans if s.label == label]

    def edges(self, trace_id: str) -> set[tuple[str, str]]:
        """(parent, child) as "service kind Name/Method" within a trace."""
        spans = {s.span_id: s for s in self.trace(trace_id)}
        return {(spans[s.parent_id].label, s.label) for s in spans.values() if s.parent_id in spans}


def short_name(name: str) -> str:
    """The name of an RPC without its package."""
    return name.rpartition(".")[2] if name.startswith("echomesh.") else name


def _values(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """Yield a collector and the address it listens on."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0)


@contextmanager
def absent() -> Iterator[str]:
    """The address of a collector that is not there; nobody else gets its port meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """The address of a collector that takes every connection and byte and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_swallow, args=(server,), name="silent", daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _swallow(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # the test is over
        threading.Thread(target=_drain, args=(connection,), daemon=True).start()


def _drain(connection: socket.socket) -> None:
    with connection:
        try:
            while connection.recv(65_536):
                pass
        except OSError:
            return
