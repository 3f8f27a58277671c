"""EmbeddingsService: from the wire to the engine and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from echomesh.embeddings.v1 import embeddings_pb2 as pb
from echomesh.embeddings.v1 import embeddings_pb2_grpc as pb_grpc
from services.embeddings.batching import Priority
from services.runtime.channel import MAX_MESSAGE_BYTES
from services.runtime.deadline import require_time
from services.runtime.errors import AppError, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.embeddings.vectors import Embedding, ModelInfo, TokenVectors

PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BULK: Priority.BULK,
}


class TextEmbedder(Protocol):
    """Makes vectors of texts."""

    @property
    def info(self) -> ModelInfo:
        """The model in force."""
        ...

    async def embed(
        self, texts: Sequence[str], priority: Priority, timeout_s: float
    ) -> list[Embedding]:
        """See `Engine.embed`."""
        ...


class EmbeddingsServicer(pb_grpc.EmbeddingsServiceServicer):
    """Serves one embedder; says nothing about what was cached, as it is shared by all tenants."""

    def __init__(self, engine: TextEmbedder) -> None:
        self._engine = engine

    async def Embed(  # noqa: N802 - the name of the RPC
        self, request: pb.EmbedRequest, context: Any
    ) -> pb.EmbedResponse:
        """Embed texts, in order."""
        found = await self._engine.embed(
            request.texts, PRIORITIES[request.priority], require_time()
        )
        response = pb.EmbedResponse(
            embeddings=[_embedding(one, request.token_vectors) for one in found],
            model=self._engine.info.version,
        )
        if response.ByteSize() > MAX_MESSAGE_BYTES:
            raise AppError(
                Reason.MESSAGE_TOO_LARGE,
                "the vectors do not fit into one message: ask for fewer texts at once",
                metadata={"limit_bytes": str(MAX_MESSAGE_BYTES)},
            )
        return response

    async def GetModel(  # noqa: N802 - the name of the RPC
        self, request: pb.GetModelRequest, context: Any
    ) -> pb.GetModelResponse:
        """The model in force."""
        info = self._engine.info
        return pb.GetModelResponse(
            model=info.version,
            dimensions=info.dimensions,
            token_dimensions=info.token_dimensions,
            max_tokens=info.max_tokens,
        )


def _embedding(found: Embedding, with_tokens: bool) -> pb.Embedding:
    return pb.Embedding(
        vector=found.vector.astype("<f4").tobytes(),
        dimensions=len(found.vector),
        tokens=found.tokens,
        truncated=found.truncated,
        token_vectors=_token_vectors(found.token_vectors) if with_tokens else None,
    )


def _token_vectors(found: TokenVectors) -> pb.TokenVectors:
    return pb.TokenVectors(
        vectors=found.vectors.tobytes(),
        dimensions=found.vectors.shape[1],
        token_ids=found.ids.tolist(),
        starts=found.starts.tolist(),
        ends=found.ends.tolist(),
    )
