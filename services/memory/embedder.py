"""Texts to vectors by the embeddings service, in the forms that storage and ranking want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from echomesh.embeddings.v1 import embeddings_pb2 as pb
from services.memory.recall import TOKEN_DIMENSIONS

if TYPE_CHECKING:
    from echomesh.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceAsyncStub

MAX_DOCUMENT_BYTES = 60_000
"""Beyond this the model reads nothing anyway, and the call would be refused."""


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query under ``model``: float32 values of unit length, int8 token rows for MaxSim."""

    model: str
    vector: Sequence[float]
    token_vectors: bytes | None


@dataclass(frozen=True, slots=True)
class DocumentVector:
    """A document under ``model``: fp16 little-endian unit vector, int8 token rows."""

    model: str
    dimensions: int
    vector: bytes
    token_vectors: bytes | None


class Embedder(Protocol):
    """Makes vectors; raises AppError when the embeddings service is away or overloaded."""

    async def model(self) -> str:
        """Return name and version of the model in force."""

    async def query(self, text: str) -> QueryVector:
        """Embed a question that somebody waits for."""

    async def documents(self, texts: Sequence[str]) -> list[DocumentVector]:
        """Embed texts in the background, in order."""


class GrpcEmbedder:
    """The embeddings service as an embedder."""

    def __init__(self, stub: EmbeddingsServiceAsyncStub) -> None:
        self._stub = stub

    async def model(self) -> str:
        """See :class:`Embedder`."""
        return str((await self._stub.GetModel(pb.GetModelRequest(), timeout=2.0)).model)

    async def query(self, text: str) -> QueryVector:
        """See :class:`Embedder`."""
        reply = await self._embed([text], pb.PRIORITY_INTERACTIVE)
        found = reply.embeddings[0]
        return QueryVector(
            model=reply.model,
            vector=np.frombuffer(found.vector, "<f4").tolist(),
            token_vectors=_token_rows(found),
        )

    async def documents(self, texts: Sequence[str]) -> list[DocumentVector]:
        """See :class:`Embedder`."""
        reply = await self._embed(texts, pb.PRIORITY_BULK)
        return [
            DocumentVector(
                model=reply.model,
                dimensions=found.dimensions,
                vector=np.frombuffer(found.vector, "<f4").astype("<f2").tobytes(),
                token_vectors=_token_rows(found),
            )
            for found in reply.embeddings
        ]

    async def _embed(
        self, texts: Sequence[str], priority: pb.Priority.ValueType
    ) -> pb.EmbedResponse:
        request = pb.EmbedRequest(
            texts=[_clipped(text) for text in texts], token_vectors=True, priority=priority
        )
        return await self._stub.Embed(request)


def _clipped(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MAX_DOCUMENT_BYTES:
        return text
    return encoded[:MAX_DOCUMENT_BYTES].decode(errors="ignore")


def _token_rows(found: pb.Embedding) -> bytes | None:
    tokens = found.token_vectors
    return tokens.vectors if tokens.dimensions == TOKEN_DIMENSIONS else None
