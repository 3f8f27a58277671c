"""A chat is one trace, from the client's span to the engine, also when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import echomesh
from echomesh import Client
from echomesh.models.v1 import models_pb2
from tests.support.gguf import small_model
from tests.support.mesh import running_mesh, until
from tests.support.otlp import Collector, SeenSpan, collecting
from tests.support.traced import CHAT, EDGES, SERVED, Traced, application_spans, chain, trace_id_of
from tests.support.waiting import until as until_true

MODEL = "llamacpp/SmolLM2-135M-Instruct.Q4_1"
PARKED = "I parked my car by the harbour."
WAIT_S = 60

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def collector_and_mesh(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Collector, Traced]]:
    """A mesh with a small language model; its spans and the application's are collected."""
    folder = tmp_path_factory.mktemp("traced") / "data"
    with collecting() as (collector, endpoint), application_spans(endpoint) as tracer:
        env = {"ECHOMESH_OTLP_ENDPOINT": endpoint}
        with running_mesh(folder, "--model", str(small_model()), env=env) as mesh:
            yield collector, Traced(mesh, tracer)


@pytest.fixture
def traced(collector_and_mesh: tuple[Collector, Traced]) -> Traced:
    return collector_and_mesh[1]


@pytest.fixture
def collector(collector_and_mesh: tuple[Collector, Traced]) -> Collector:
    return collector_and_mesh[0]


async def chat_inside_a_span(
    traced: Traced, text: str, *, leave_early: bool = False, **options: Any
) -> tuple[str, echomesh.Final | None]:
    """Chat below a span of the application, signing in first; returns the trace id and the end."""
    mesh, final = traced.mesh, None
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        # With nothing remembered at all there is nothing to embed a question for.
        await client.remember(PARKED, request_id="parked")
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with traced.tracer.start_as_current_span("application") as span:
            frames = client.chat(text, conversation_id="traced", tier="standard", **options)
            async for frame in frames:
                final = frame if isinstance(frame, echomesh.Final) else None
                if leave_early and isinstance(frame, echomesh.Accepted):
                    break
            await frames.aclose()
    return trace_id_of(span), final


def arrived(collector: Collector, trace_id: str, edges: set[tuple[str, str]]) -> None:
    """Wait for the edges of a trace; names those that never came."""
    with contextlib.suppress(AssertionError):
        until(lambda: collector.edges(trace_id) >= edges, WAIT_S, "the arrival of every edge")
    assert edges - collector.edges(trace_id) == set()


def span_of(collector: Collector, trace_id: str, label: str) -> SeenSpan:
    """The one span of a trace with that label, once it has come."""
    found = until(
        lambda: [s for s in collector.trace(trace_id) if s.label == label], WAIT_S, f"span {label}"
    )
    assert len(found) == 1
    return found[0]  # type: ignore[no-any-return]


async def test_a_chat_is_one_trace_from_the_client_through_every_service_and_signs_in_within_it(
    collector: Collector, traced: Traced
) -> None:
    trace_id, _ = await chat_inside_a_span(traced, "Where did I park my car last week?")
    arrived(collector, trace_id, EDGES)
    roots = [s for s in collector.trace(trace_id) if not s.parent_id]
    assert [s.label for s in roots] == ["app internal application"]
    assert [s.label for s in collector.trace(trace_id) if s.error] == []


async def test_a_chat_that_a_language_model_answers_is_traced_down_to_its_engine(
    collector: Collector, traced: Traced
) -> None:
    """The model loads while the mesh is up already: asked until it is the one that answers."""
    brief = models_pb2.Sampling(max_tokens=8)

    async def by_the_model() -> str:
        """The trace of a short reply that the model wrote; empty if it did not."""
        with contextlib.suppress(echomesh.EchomeshError):
            trace_id, final = await chat_inside_a_span(
                traced, "Hello!", model=MODEL, recall=False, store=False, sampling=brief
            )
            return trace_id if final and final.model == MODEL else ""
        return ""

    trace_id = await until_true(by_the_model, "the language model answers")
    generated = f"models client chat {MODEL}"
    engine = "engine server EngineWorkerService/Generate"
    arrived(collector, trace_id, chain("models server ModelService/Generate", generated, engine))
    said = span_of(collector, trace_id, generated).attributes
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "llamacpp"
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == MODEL
    assert said["gen_ai.response.finish_reasons"] in (["stop"], ["length"])
    assert said["gen_ai.usage.input_tokens"] > 0
    assert said["gen_ai.usage.output_tokens"] > 0
    assert said["gen_ai.response.time_to_first_chunk"] > 0


async def test_an_end_user_is_exchanged_for_a_token_within_the_trace_of_the_first_call(
    collector: Collector, traced: Traced
) -> None:
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with traced.tracer.start_as_current_span("application") as span:
            await client.as_user("alice").recall("anything")
    recall = "app client MemoryService/Recall"
    exchange = "app client AuthService/ExchangeToken"
    arrived(
        collector,
        trace_id_of(span),
        chain("app internal application", recall, "memory server MemoryService/Recall")
        | chain(recall, exchange, "auth server AuthService/ExchangeToken")
        | chain(
            exchange,
            "app client AuthService/ExchangeApiKey",
            "auth server AuthService/ExchangeApiKey",
        ),
    )


async def test_a_chats_span_says_by_ids_and_events_what_happened(
    collector: Collector, traced: Traced
) -> None:
    trace_id, final = await chat_inside_a_span(traced, "Where is my car?")
    chat = span_of(collector, trace_id, SERVED)
    assert final is not None
    assert chat.attributes["rpc.system.name"] == "grpc"
    assert chat.attributes["rpc.method"] == f"echomesh.routing.v1.{CHAT}"
    assert chat.attributes["rpc.response.status_code"] == "OK"
    assert chat.attributes["gen_ai.conversation.id"] == "traced"
    assert chat.attributes["gen_ai.response.model"] == final.model
    assert chat.attributes["echomesh.reply.id"] == final.reply_id
    assert chat.attributes["echomesh.message.id"] == final.message_id
    names = [name for name, _ in chat.events]
    assert names[-1] == "echomesh.first_text"
    assert {"echomesh.decision", "echomesh.memories"} <= set(names)


async def test_no_span_holds_what_was_said_or_remembered(
    collector: Collector, traced: Traced
) -> None:
    """Neither the message, nor a memory, nor a reply: also not in spans of jobs and engines."""
    secret = "Where is the zanzibarium with my car by the harbour?"
    trace_id, _ = await chat_inside_a_span(traced, secret)
    arrived(collector, trace_id, EDGES)
    spans = [span for span in collector.spans() if span.service != "app"]
    told = [text for span in spans for text in span.texts()]
    assert len(told) > 100
    assert [text for text in told if "zanzibarium" in text or "harbour" in text] == []


async def test_a_cancelled_chat_ends_its_span_as_cancelled(
    collector: Collector, traced: Traced
) -> None:
    """A short reply may end before anybody can leave it: then another one is asked for."""

    async def codes() -> set[tuple[str, Any]]:
        """How the client's and the server's span of a chat that was left ended."""
        trace_id, _ = await chat_inside_a_span(traced, "Tell me about it.", leave_early=True)
        chats = [span_of(collector, trace_id, label) for label in (f"app client {CHAT}", SERVED)]
        return {(chat.error, chat.attributes["rpc.response.status_code"]) for chat in chats}

    async def left_in_time() -> set[tuple[str, Any]]:
        found = await codes()
        return set() if ("", "OK") in found else found

    ended = await until_true(left_in_time, "a chat is left before its end")
    assert ended == {("CANCELLED", "CANCELLED")}


async def test_a_failed_call_is_an_error_in_the_trace_that_its_status_names(
    collector: Collector, traced: Traced
) -> None:
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with pytest.raises(echomesh.EchomeshError) as failed:
            await client.forget("00000000-0000-4000-8000-000000000000")
    for label in (
        "app client MemoryService/ForgetMemory",
        "memory server MemoryService/ForgetMemory",
    ):
        span = span_of(collector, failed.value.trace_id, label)
        assert (span.error, span.attributes["error.type"]) == ("NOT_FOUND", "NOT_FOUND")


async def test_a_background_job_is_linked_to_the_call_that_queued_it(
    collector: Collector, traced: Traced
) -> None:
    """Indexing is no part of the call's own trace: it runs later, for many calls at once."""
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with traced.tracer.start_as_current_span("application") as span:
            await client.remember("The spare key is under the pot.")
    queued = span_of(collector, trace_id_of(span), "memory server MemoryService/Remember")

    def linked() -> list[SeenSpan]:
        jobs = collector.labelled("memory consumer process outbox")
        return [job for job in jobs if (queued.trace_id, queued.span_id) in job.links]

    job = until(linked, WAIT_S, "the job's span")[0]
    assert job.trace_id != queued.trace_id
    assert job.attributes["messaging.batch.message_count"] >= 1
    embedded = (
        "memory client EmbeddingsService/Embed",
        "embeddings server EmbeddingsService/Embed",
    )
    arrived(collector, job.trace_id, {embedded})
