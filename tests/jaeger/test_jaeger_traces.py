"""What a real Jaeger shows of a mesh: sent by OTLP, read back from its query API."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

import echomesh
from echomesh import Client
from tests.support.jaeger import Jaeger
from tests.support.mesh import echomesh as command
from tests.support.mesh import until
from tests.support.otlp import SeenSpan
from tests.support.traced import CHAT, EDGES, SERVED, Traced, trace_id_of

OPERATION = f"echomesh.routing.v1.{CHAT}"
REMEMBER = "memory server MemoryService/Remember"
WAIT_S = 60

pytestmark = pytest.mark.timeout(240)


async def chat(traced: Traced, text: str, user: str = "") -> tuple[str, echomesh.Final]:
    """Chat below a span of the application, signing in first; the trace's id and the end."""
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as first:
        # With nothing remembered at all there is nothing to embed a question for.
        await first.remember("I parked my car by the harbour.", request_id="parked")
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with traced.tracer.start_as_current_span("application") as span:
            speaker = client.as_user(user) if user else client
            _, final = await speaker.reply(text, conversation_id="jaeger")
    return trace_id_of(span), final


def spans(jaeger: Jaeger, trace_id: str, label: str) -> list[SeenSpan]:
    """The spans of a trace with that label, once Jaeger has them."""

    def found() -> list[SeenSpan]:
        return [span for span in jaeger.trace(trace_id) if span.label == label]

    return until(found, WAIT_S, f"{label} in Jaeger")  # type: ignore[no-any-return]


async def test_a_chat_is_one_trace_with_every_edge(jaeger: Jaeger, traced: Traced) -> None:
    trace_id, _ = await chat(traced, "Where did I park my car last week?")
    with contextlib.suppress(AssertionError):
        until(lambda: jaeger.edges(trace_id) >= EDGES, WAIT_S, "the arrival of every edge")
    assert EDGES - jaeger.edges(trace_id) == set()
    assert [s.label for s in jaeger.trace(trace_id) if not s.parent_id] == [
        "app internal application"
    ]


async def test_a_failed_call_is_found_by_its_error(jaeger: Jaeger, traced: Traced) -> None:
    """By its reason: the storage in memory does not find `error=true`."""
    began = time.time()
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with pytest.raises(echomesh.EchomeshError) as failed:
            await client.forget("00000000-0000-4000-8000-000000000000")
    wanted = {"error.type": "NOT_FOUND"}
    operation = "echomesh.memory.v1.MemoryService/ForgetMemory"

    def found() -> set[str]:
        return jaeger.search("memory", operation, wanted, began - 1, time.time() + 1)

    until(lambda: failed.value.trace_id in found(), WAIT_S, "the failed call in a search")
    (refused,) = spans(jaeger, failed.value.trace_id, "memory server MemoryService/ForgetMemory")
    assert refused.error


async def test_a_cancelled_chat_says_so(jaeger: Jaeger, traced: Traced) -> None:
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with traced.tracer.start_as_current_span("application") as span:
            frames = client.chat("Tell me about it.", conversation_id="jaeger")
            await anext(frames)
            await frames.aclose()
    (served,) = spans(jaeger, trace_id_of(span), SERVED)
    assert served.error
    assert served.attributes["rpc.response.status_code"] == "CANCELLED"


async def test_a_job_leads_back_to_the_call_that_queued_it(jaeger: Jaeger, traced: Traced) -> None:
    mesh, began = traced.mesh, time.time()
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        with traced.tracer.start_as_current_span("application") as span:
            await client.remember("The spare key is under the pot.")
    queued = (trace_id_of(span), spans(jaeger, trace_id_of(span), REMEMBER)[0].span_id)

    def jobs() -> list[SeenSpan]:
        found = jaeger.search("memory", "process outbox", {}, began - 1, time.time() + 1)
        return [span for each in found for span in jaeger.trace(each) if queued in span.links]

    assert until(jobs, WAIT_S, "the linked job in Jaeger")


async def test_a_bad_reply_is_found_by_time_and_person_and_explained(
    jaeger: Jaeger, traced: Traced
) -> None:
    """The way of docs/tracing.md: search, take the reply's id, ask why, follow the link."""
    began = time.time()
    _, final = await chat(traced, "Where is my bicycle?", user="alice")
    mesh = traced.mesh
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        why = await client.as_user("alice").explain(message_id=final.reply_id)
    wanted = {"gen_ai.conversation.id": "jaeger", "echomesh.reply.id": final.reply_id}

    def found() -> set[str]:
        return jaeger.search("routing", OPERATION, wanted, began - 1, time.time() + 1)

    (trace_id,) = until(found, WAIT_S, "the reply in a search")
    assert why.trace_url == f"{jaeger.query}/trace/{trace_id}"
    arguments = ("why", final.reply_id, "--user", "alice", "--data", str(mesh.data))
    told = command(*arguments)
    assert told.returncode == 0, told.stderr
    assert why.trace_url in told.stdout
    assert final.model in told.stdout


def test_the_query_api_names_every_service(jaeger: Jaeger, traced: Traced) -> None:
    wanted = {"app", "routing", "memory", "embeddings", "models", "auth"}
    until(lambda: wanted <= set(jaeger.get("services")), WAIT_S, json.dumps(sorted(wanted)))
