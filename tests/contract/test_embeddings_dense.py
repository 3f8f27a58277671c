"""Dense vectors that a model of the models service makes, beside the packaged model's tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echomesh.embeddings.v1 import embeddings_pb2 as pb
from echomesh.embeddings.v1 import embeddings_pb2_grpc as pb_grpc
from echomesh.models.v1 import models_pb2
from services.embeddings.dense import DenseByModel
from services.embeddings.engine import Engine, EngineLimits
from services.embeddings.metrics import EngineMetrics
from services.embeddings.server import SERVICE
from services.embeddings.service import EmbeddingsServicer
from services.models.failures import away
from services.runtime.clock import SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.server import Registration
from tests.support.encoders import FakeEncoder
from tests.support.transport import serving

DIMENSIONS = 3


class Models:
    """A models service; its vectors point along the first axis."""

    def __init__(self) -> None:
        self.error: AppError | None = None
        self.dimensions = DIMENSIONS
        self.asked: list[models_pb2.EmbedRequest] = []

    async def Embed(  # noqa: N802 - the contract's name
        self, request: models_pb2.EmbedRequest
    ) -> models_pb2.EmbedResponse:
        if self.error:
            raise self.error
        self.asked.append(request)
        vector = np.eye(1, self.dimensions, dtype="<f4").tobytes()
        made = [
            models_pb2.Embedding(vector=vector, tokens=9, truncated=text == "long")
            for text in request.texts
        ]
        return models_pb2.EmbedResponse(embeddings=made)


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
async def stub(models: Any, tmp_path: Path) -> AsyncIterator[pb_grpc.EmbeddingsServiceStub]:
    engine = Engine(FakeEncoder(), EngineLimits(threads=1), SystemClock(), EngineMetrics())
    engine.start()
    servicer = EmbeddingsServicer(DenseByModel(engine, models, "vllm/big", DIMENSIONS))
    registration = Registration(pb_grpc.add_EmbeddingsServiceServicer_to_server, servicer, SERVICE)
    async with serving(tmp_path, registration, name="embeddings") as wire, wire.mesh() as channel:
        yield pb_grpc.EmbeddingsServiceStub(channel)
    await engine.close()


async def test_the_dense_vector_is_the_models_and_the_tokens_vectors_are_the_packaged_ones(
    stub, models
):
    answer = await stub.Embed(pb.EmbedRequest(texts=["one two", "long"], token_vectors=True))
    first, second = answer.embeddings
    assert np.frombuffer(first.vector, "<f4").tolist() == [1, 0, 0]
    assert first.dimensions == DIMENSIONS
    assert len(first.token_vectors.token_ids) == 2
    assert (first.truncated, second.truncated) == (False, True)
    assert (models.asked[0].model, list(models.asked[0].texts)) == ("vllm/big", ["one two", "long"])


async def test_the_version_names_both_models_and_the_size_is_the_dense_ones(stub):
    told = await stub.GetModel(pb.GetModelRequest())
    assert (told.model, told.dimensions) == ("vllm/big+fake@1", DIMENSIONS)
    answer = await stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert answer.model == told.model


async def test_while_the_model_is_away_nothing_is_made(stub, models):
    """Recall goes on without vectors then, and says so."""
    models.error = away("vllm/big", "is away")
    with pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert caught.value.reason is Reason.MODEL_UNAVAILABLE
    assert caught.value.retry_after_s


async def test_when_the_own_engine_refuses_the_model_is_not_left_working(stub, models, monkeypatch):
    left = asyncio.Event()

    async def never(_: models_pb2.EmbedRequest) -> models_pb2.EmbedResponse:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    async def full(*_: object) -> None:
        await asyncio.sleep(0)
        raise AppError(Reason.OVERLOADED, "full", retry_after_s=1.0)

    monkeypatch.setattr(models, "Embed", never)
    monkeypatch.setattr(Engine, "embed", full)
    with pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert caught.value.reason is Reason.OVERLOADED
    assert left.is_set()


async def test_a_model_of_another_size_is_refused_before_anything_is_stored_under_it(stub, models):
    models.dimensions = 4
    with pytest.raises(AppError) as caught:
        await stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert caught.value.reason is Reason.MODEL_BAD_RESPONSE
