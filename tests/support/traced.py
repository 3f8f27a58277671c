"""A running mesh whose spans, and those of the application that calls it, are collected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.mesh import RunningMesh

CHAT = "ChatService/Chat"


@dataclass(frozen=True)
class Traced:
    """The mesh, and the tracer of the application."""

    mesh: RunningMesh
    tracer: trace.Tracer


@contextmanager
def application_spans(endpoint: str) -> Iterator[trace.Tracer]:
    """The tracer of an application named `app`, also for the SDK inside it; sent to `endpoint`.

    Instead of the process's own provider, which could be set only once in a whole test run.
    """
    provider = TracerProvider(resource=Resource({"service.name": "app"}))
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        yield provider.get_tracer("test")
    provider.shutdown()


def trace_id_of(span: trace.Span) -> str:
    """The id of a span's trace as 32 hexadecimal digits."""
    return format(span.get_span_context().trace_id, "032x")


def chain(*labels: str) -> set[tuple[str, str]]:
    """The edges of a call that goes on from each to the next."""
    return set(pairwise(labels))


# The edges of a first chat, in which the quoting model answers; Final waits for the commit.
SERVED = f"routing server {CHAT}"
EDGES = (
    chain("app internal application", f"app client {CHAT}", SERVED)
    | chain(
        SERVED,
        "routing client ConversationService/BeginTurn",
        "memory server ConversationService/BeginTurn",
    )
    | chain(
        SERVED,
        "routing client MemoryService/Recall",
        "memory server MemoryService/Recall",
        "memory client EmbeddingsService/Embed",
        "embeddings server EmbeddingsService/Embed",
    )
    | chain(
        SERVED,
        "routing client ModelService/Generate",
        "models server ModelService/Generate",
        "models internal chat extractive",
    )
    | chain(
        SERVED,
        "routing client ConversationService/CompleteTurn",
        "memory server ConversationService/CompleteTurn",
    )
    | chain(
        f"app client {CHAT}",
        "app client AuthService/ExchangeApiKey",
        "auth server AuthService/ExchangeApiKey",
    )
)
