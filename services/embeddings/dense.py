"""Dense vectors from a model of the models service, mostly one on a GPU.

The vectors of tokens, by which recall ranks finely, go on to be the packaged model's: late
interaction needs them small, and they are made where the texts are.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from echomesh.models.v1 import models_pb2 as pb
from services.runtime.concurrently import all_of
from services.runtime.errors import AppError, Reason

if TYPE_CHECKING:
    from echomesh.models.v1.models_pb2_grpc import ModelServiceAsyncStub
    from services.embeddings.batching import Priority
    from services.embeddings.engine import Engine
    from services.embeddings.vectors import Embedding, ModelInfo


class DenseByModel:
    """An engine whose dense vectors come from another model.

    Args:
        engine: makes the vectors of tokens.
        stub: the models service.
        model: its model that makes vectors, such as "vllm/bge-m3".
        dimensions: of that model's vectors.

    """

    def __init__(
        self, engine: Engine, stub: ModelServiceAsyncStub, model: str, dimensions: int
    ) -> None:
        self._engine = engine
        self._stub = stub
        self._model = model
        own = engine.info
        self.info: ModelInfo = replace(own, version=f"{model}+{own.version}", dimensions=dimensions)
        """Both models; vectors of another pair are not comparable."""

    async def embed(
        self, texts: Sequence[str], priority: Priority, timeout_s: float
    ) -> list[Embedding]:
        """See `Engine.embed`; raises MODEL_UNAVAILABLE while the other model is away as well."""
        works: list[Coroutine[Any, Any, Any]] = [
            self._engine.embed(texts, priority, timeout_s),
            self._vectors(texts),
        ]
        own, dense = await all_of(works)
        return [
            replace(one, vector=vector, truncated=one.truncated or cut)
            for one, (vector, cut) in zip(own, dense, strict=True)
        ]

    async def _vectors(self, texts: Sequence[str]) -> list[tuple[np.ndarray, bool]]:
        answer = await self._stub.Embed(pb.EmbedRequest(model=self._model, texts=texts))
        made = [(np.frombuffer(one.vector, "<f4"), one.truncated) for one in answer.embeddings]
        if len(made) != len(texts) or any(len(v) != self.info.dimensions for v, _ in made):
            raise AppError(
                Reason.MODEL_BAD_RESPONSE,
                f"{self._model} does not make vectors of {self.info.dimensions} dimensions",
                metadata={"model": self._model},
            )
        return made
