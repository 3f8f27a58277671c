"""A chat is one trace, from the client's span to the last service, also when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import echomesh
from echomesh import Client
from tests.support.mesh import RunningMesh, running_mesh, until
from tests.support.otlp import Collector, collecting

CHAT = "ChatService/Chat"
WAIT_S = 20


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningMesh, Collector, trace.Tracer]]:
    """A mesh that exports its spans here, and a tracer whose spans come here too."""
    with collecting() as (collector, endpoint):
        provider = TracerProvider(resource=Resource({"service.name": "app"}))
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        env = {"ECHOMESH_OTLP_ENDPOINT": endpoint}
        folder = tmp_path_factory.mktemp("traced") / "data"
        with running_mesh(folder, env=env) as mesh:
            yield mesh, collector, provider.get_tracer("test")
        provider.shutdown()


async def chat_inside_a_span(
    mesh: RunningMesh, tracer: trace.Tracer, text: str, *, leave_early: bool = False
) -> str:
    """Chat below a span of the application; returns the trace id."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        # With nothing remembered at all there is nothing to embed a question for.
        await client.remember("I parked my car by the harbour.", request_id="parked")
        with tracer.start_as_current_span("application") as span:
            frames = client.chat(text, conversation_id="traced")
            async for frame in frames:
                if leave_early and isinstance(frame, echomesh.Accepted):
                    break
            await frames.aclose()  # type: ignore[attr-defined]
        return format(span.get_span_context().trace_id, "032x")


EDGES = {
    (f"routing server {CHAT}", "routing client ConversationService/BeginTurn"),
    (
        "routing client ConversationService/BeginTurn",
        "memory server ConversationService/BeginTurn",
    ),
    (f"routing server {CHAT}", "routing client MemoryService/Recall"),
    ("routing client MemoryService/Recall", "memory server MemoryService/Recall"),
    ("memory server MemoryService/Recall", "memory client EmbeddingsService/Embed"),
    ("memory client EmbeddingsService/Embed", "embeddings server EmbeddingsService/Embed"),
    (f"routing server {CHAT}", "routing client ModelService/Generate"),
    ("routing client ModelService/Generate", "models server ModelService/Generate"),
}


async def test_a_chat_is_one_trace_with_the_right_edges(
    traced: tuple[RunningMesh, Collector, trace.Tracer],
) -> None:
    mesh, collector, tracer = traced
    trace_id = await chat_inside_a_span(mesh, tracer, "Where did I park my car last week?")
    with contextlib.suppress(AssertionError):
        until(lambda: collector.edges(trace_id) >= EDGES, WAIT_S, "the arrival of every edge")
    assert EDGES - collector.edges(trace_id) == set()
    roots = [s for s in collector.trace(trace_id) if not s.parent_id]
    assert [s.name for s in roots] == ["application"]
    chat = next(s for s in collector.trace(trace_id) if s.name == CHAT and s.kind == "server")
    assert chat.error == ""


async def test_a_cancelled_chat_ends_its_span_as_cancelled(
    traced: tuple[RunningMesh, Collector, trace.Tracer],
) -> None:
    mesh, collector, tracer = traced
    trace_id = await chat_inside_a_span(mesh, tracer, "Tell me about it.", leave_early=True)

    def cancelled() -> bool:
        spans = collector.trace(trace_id)
        return any(s.name == CHAT and s.kind == "server" and s.error for s in spans)

    until(cancelled, WAIT_S, "the end of the cancelled span")


async def test_a_failed_call_is_an_error_in_the_trace_that_its_status_names(
    traced: tuple[RunningMesh, Collector, trace.Tracer],
) -> None:
    mesh, collector, _ = traced
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with pytest.raises(echomesh.EchomeshError) as failed:
            await client.forget("00000000-0000-4000-8000-000000000000")
    trace_id = failed.value.trace_id

    def recorded() -> bool:
        return any(s.error == "NOT_FOUND" for s in collector.trace(trace_id))

    until(recorded, WAIT_S, "the error's span")
