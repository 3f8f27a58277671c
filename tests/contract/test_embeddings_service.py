"""EmbeddingsService over the wire, as another service of the mesh sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from echomesh.embeddings.v1 import embeddings_pb2 as pb
from echomesh.embeddings.v1 import embeddings_pb2_grpc as pb_grpc
from services.embeddings.backlog import QueueLimits
from services.embeddings.engine import Engine, EngineLimits
from services.embeddings.metrics import EngineMetrics
from services.embeddings.server import SERVICE
from services.embeddings.service import EmbeddingsServicer
from services.runtime.clock import SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.server import Registration
from tests.support.encoders import FakeEncoder
from tests.support.transport import Wire, serving


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
async def engine(encoder: FakeEncoder) -> AsyncIterator[Engine]:
    limits = EngineLimits(threads=1, queue=QueueLimits(texts=256, text_bytes=1 << 20))
    engine = Engine(encoder, limits, SystemClock(), EngineMetrics())
    engine.start()
    yield engine
    encoder.held.set()
    await engine.close()


@pytest.fixture
async def wire(engine: Engine, tmp_path: Path) -> AsyncIterator[Wire]:
    registration = Registration(
        pb_grpc.add_EmbeddingsServiceServicer_to_server, EmbeddingsServicer(engine), SERVICE
    )
    async with serving(tmp_path, registration, name="embeddings") as wire:
        yield wire


@pytest.fixture
async def stub(wire: Wire) -> AsyncIterator[pb_grpc.EmbeddingsServiceStub]:
    async with wire.mesh() as channel:
        yield pb_grpc.EmbeddingsServiceStub(channel)


async def test_embed_answers_each_text_in_order_with_vector_and_size(stub):
    response = await stub.Embed(pb.EmbedRequest(texts=["b", "a a"]))
    vectors = [np.frombuffer(one.vector, "<f4") for one in response.embeddings]
    assert [int(np.argmax(vector)) for vector in vectors] == [1, 0]
    assert [one.dimensions for one in response.embeddings] == [26, 26]
    assert [one.tokens for one in response.embeddings] == [1, 2]
    assert response.model == "fake@1"


async def test_token_vectors_come_only_when_asked_for(stub):
    plain = await stub.Embed(pb.EmbedRequest(texts=["one two"]))
    assert not plain.embeddings[0].HasField("token_vectors")
    rich = await stub.Embed(pb.EmbedRequest(texts=["one two"], token_vectors=True))
    parts = rich.embeddings[0].token_vectors
    assert len(parts.vectors) == 2 * parts.dimensions
    assert len(parts.token_ids) == len(parts.starts) == len(parts.ends) == 2


async def test_truncation_is_reported(stub):
    response = await stub.Embed(pb.EmbedRequest(texts=["word " * 101, "word"]))
    assert [one.truncated for one in response.embeddings] == [True, False]


async def test_nothing_in_an_answer_tells_whether_it_was_cached(stub):
    request = pb.EmbedRequest(texts=["somebody's secret"])
    assert await stub.Embed(request) == await stub.Embed(request)


async def test_get_model_says_what_the_vectors_are(stub):
    model = await stub.GetModel(pb.GetModelRequest())
    expected = pb.GetModelResponse(
        model="fake@1", dimensions=26, token_dimensions=2, max_tokens=100
    )
    assert model == expected


@pytest.mark.parametrize(
    "request_",
    [
        pb.EmbedRequest(),
        pb.EmbedRequest(texts=["x"] * 257),
        pb.EmbedRequest(texts=["x" * 65537]),
        pb.EmbedRequest(texts=["x"], priority=9),  # type: ignore[arg-type]
    ],
    ids=["no texts", "too many texts", "too long a text", "unknown priority"],
)
async def test_what_the_contract_rules_out_is_refused(stub, request_):
    with pytest.raises(AppError) as caught:
        await stub.Embed(request_)
    assert caught.value.reason is Reason.INVALID_REQUEST


async def test_a_full_queue_is_refused_with_a_time_to_retry(stub, encoder, engine):
    encoder.held.clear()
    first = asyncio.create_task(stub.Embed(pb.EmbedRequest(texts=["first"])))
    await asyncio.to_thread(encoder.begun.wait, 5)
    texts = [f"{number}" for number in range(256)]
    waiting = asyncio.create_task(stub.Embed(pb.EmbedRequest(texts=texts)))
    async with asyncio.timeout(30):
        while engine.ready < len(texts):
            await asyncio.sleep(0)
    with pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["one more"]))
    assert caught.value.reason is Reason.OVERLOADED
    assert (caught.value.retry_after_s or 0) > 0
    encoder.held.set()
    await asyncio.gather(first, waiting)


async def test_a_call_whose_time_is_over_ends_and_its_text_is_never_computed(stub, encoder):
    encoder.held.clear()
    held = asyncio.create_task(stub.Embed(pb.EmbedRequest(texts=["held"])))
    await asyncio.to_thread(encoder.begun.wait, 5)
    with deadline_scope(0.2), pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["too late"]))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    encoder.held.set()
    await held
    await stub.Embed(pb.EmbedRequest(texts=["next"]))
    assert "too late" not in encoder.encoded


async def test_an_answer_too_large_for_a_message_is_refused_clearly(stub, monkeypatch):
    monkeypatch.setattr("services.embeddings.service.MAX_MESSAGE_BYTES", 100)
    with pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["x"]))
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE


async def test_an_error_of_the_engine_tells_nothing_of_its_inside(stub, encoder):
    encoder.error = RuntimeError("/secret/path/model.onnx")
    with pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["x"]))
    assert caught.value.reason is Reason.INTERNAL
    assert "secret" not in str(caught.value)


async def test_only_services_of_the_mesh_may_call(wire):
    for public in (True, False):
        async with wire.raw(public=public) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await pb_grpc.EmbeddingsServiceStub(channel).Embed(pb.EmbedRequest(texts=["x"]))
            assert caught.value.code() in {
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.PERMISSION_DENIED,
            }
