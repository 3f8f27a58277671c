"""ModelService on the wire: validate, convert, call, convert back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from echomesh.models.v1 import models_pb2 as pb
from echomesh.models.v1 import models_pb2_grpc
from services.models.catalogue import Catalogue
from services.models.coalesce import coalesced
from services.models.convert import generation_from, model_from, response_from
from services.models.domain import estimated_tokens
from services.models.observing import observed
from services.runtime.errors import AppError, Reason


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Serves the models of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def Generate(  # noqa: N802 - the contract's name
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Streams a reply; cancelling the call stops the generation."""
        generation = generation_from(request)
        backend, card = self._catalogue.choose(generation)
        source = backend.generate(generation, card)
        # What writes token by token is worth gathering; a quotation comes whole.
        replies = coalesced(source) if card.generative else source
        async with aclosing(observed(replies, generation, card)) as events:
            async for event in events:
                yield response_from(event)

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """Lists every model, those that are away included."""
        return pb.ListModelsResponse(models=map(model_from, self._catalogue.models()))

    async def Embed(  # noqa: N802 - the contract's name
        self, request: pb.EmbedRequest, context: Any
    ) -> pb.EmbedResponse:
        """Makes vectors of texts."""
        vectors = await self._catalogue.embedder(request.model).embed(request.texts)
        return pb.EmbedResponse(
            embeddings=[
                pb.Embedding(vector=one.data, tokens=one.tokens, truncated=one.truncated)
                for one in vectors
            ]
        )

    async def CountTokens(  # noqa: N802 - the contract's name
        self, request: pb.CountTokensRequest, context: Any
    ) -> pb.CountTokensResponse:
        """Counts with the model's own tokenizer where that is at hand, else estimates."""
        counter = self._catalogue.counter(request.model)
        if counter is not None:
            try:
                return pb.CountTokensResponse(
                    tokens=await counter.count_tokens(request.texts), exact=True
                )
            except AppError as error:
                if error.reason is not Reason.MODEL_UNAVAILABLE:
                    raise
        return pb.CountTokensResponse(tokens=map(estimated_tokens, request.texts), exact=False)
