"""A whole chat with a small real model in vLLM, from the SDK through routing, as one trace."""

from __future__ import annotations

import asyncio
import json
import signal
import string
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from echomesh import Client, Text
from tests.support.engines import START_S
from tests.support.mesh import RunningMesh, running_mesh, until
from tests.support.otlp import Collector, collecting

MODEL = "vllm/smollm2"
WORKER = "services.models.engines.worker"
GENERATE = ("engine server EngineWorkerService/Generate", "engine server llm_request")
Traced = tuple[RunningMesh, Collector, trace.Tracer]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def traced(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A mesh with the small model, its spans and those of the tests collected here."""
    model = {
        "engine": "vllm",
        "model": str(small),
        "name": "smollm2",
        "context_length": 2048,
        "slots": 4,
        "kv_cache_bytes": 512 << 20,
        "eager": True,
    }
    with collecting() as (collector, endpoint):
        provider = TracerProvider(resource=Resource({"service.name": "app"}))
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        env = {
            "ECHOMESH_OTLP_ENDPOINT": endpoint,
            "ECHOMESH_MODELS_ENGINES": json.dumps([model]),
        }
        with running_mesh(tmp_path_factory.mktemp("mesh") / "data", env=env) as mesh:
            yield mesh, collector, provider.get_tracer("test")
        provider.shutdown()


async def written(mesh: RunningMesh, tracer: trace.Tracer) -> tuple[list[str], str]:
    """The pieces of the first reply that the language model wrote, and its trace's id."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        async with asyncio.timeout(START_S):
            while True:
                with tracer.start_as_current_span("application") as span:
                    chat = client.chat("Hello! How are you today?", tier="standard")
                    frames = [frame async for frame in chat]
                if getattr(frames[-1], "model", "") == MODEL:
                    trace_id = format(span.get_span_context().trace_id, "032x")
                    return [f.text for f in frames if isinstance(f, Text)], trace_id
                await asyncio.sleep(0.5)


async def test_a_chat_is_answered_in_words_and_its_trace_reaches_the_engine(
    traced: Traced,
) -> None:
    mesh, collector, tracer = traced
    pieces, trace_id = await written(mesh, tracer)
    assert len(pieces) > 1
    words = "".join(pieces).split()
    assert len(words) > 3
    assert sum(word.strip(string.punctuation).isalpha() for word in words) > len(words) / 2
    until(lambda: GENERATE in collector.edges(trace_id), 60, "the engine's span in the trace")


async def test_killing_the_service_leaves_neither_worker_nor_engine_core(traced: Traced) -> None:
    mesh, _, tracer = traced
    service = mesh.service("models")
    below = service.children(recursive=True)
    assert any(WORKER in process.cmdline() for process in below)
    assert len(below) > 1
    service.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
    pieces, _ = await written(mesh, tracer)
    assert "".join(pieces).strip()
