"""Token vectors from the embeddings service, for late-interaction scores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from echomesh.embeddings.v1 import embeddings_pb2 as pb
from services.models.extractive.turns import TokenGrid
from services.runtime.errors import AppError

if TYPE_CHECKING:
    from echomesh.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceAsyncStub

# The reply is the last resort and the instant tier is 0.5 s: better by words alone than late.
BUDGET_S = 0.4
_INT8_MAX = 127.0


class TokenEmbedder(Protocol):
    """Makes token vectors."""

    async def grids(self, texts: Sequence[str]) -> dict[str, TokenGrid]:
        """Returns the token vectors by text; empty when they cannot be had in time."""
        ...


class GrpcTokenEmbedder:
    """The embeddings service as a token embedder."""

    def __init__(self, stub: EmbeddingsServiceAsyncStub, budget_s: float = BUDGET_S) -> None:
        self._stub = stub
        self._budget_s = budget_s

    async def grids(self, texts: Sequence[str]) -> dict[str, TokenGrid]:
        """See `TokenEmbedder.grids`."""
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        if not distinct:
            return {}
        request = pb.EmbedRequest(
            texts=distinct, token_vectors=True, priority=pb.PRIORITY_INTERACTIVE
        )
        try:
            async with asyncio.timeout(self._budget_s):
                reply = await self._stub.Embed(request)
        except (AppError, TimeoutError):
            return {}
        embeddings = zip(distinct, reply.embeddings, strict=False)
        return {text: to_grid(embedding.token_vectors) for text, embedding in embeddings}


def to_grid(message: pb.TokenVectors) -> TokenGrid:
    """Returns token vectors as float32 rows of unit length; none if the message holds none."""
    flat = np.frombuffer(message.vectors, dtype=np.int8).astype(np.float32) / _INT8_MAX
    vectors = flat.reshape(-1, max(message.dimensions, 1))
    return TokenGrid(vectors, tuple(message.token_ids), tuple(message.starts))
