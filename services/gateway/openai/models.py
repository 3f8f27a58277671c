"""GET /v1/models and /v1/models/{id}, and which model makes vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from echomesh.embeddings.v1 import embeddings_pb2
from echomesh.models.v1 import models_pb2
from services.gateway.errors import json_response
from services.gateway.mesh import Mesh
from services.gateway.openai.schema import DEFAULT_MODEL
from services.gateway.openai.turns import TIERS
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, not_found
from services.runtime.identity import acting_as

# A model that appears is listed within this time.
_FRESH_S = 2.0
_ASK_S = 5.0
_OWNER = "echomesh"


@dataclass(frozen=True)
class Listed:
    """A name that a request may have as its `model`."""

    id: str
    owned_by: str

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it. The mesh does not know when a model was made."""
        return {"id": self.id, "object": "model", "created": 0, "owned_by": self.owned_by}


class Models:
    """The models of the mesh, as last heard."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._known: Sequence[Listed] = ()
        self._heard_at = float("-inf")

    async def every(self, request: Request) -> Response:
        """Every name that `model` may have: the mesh's own choices first."""
        await self._mesh.sign_in(request)
        listed = [each.body() for each in await self._models()]
        return json_response({"object": "list", "data": listed})

    async def one(self, request: Request) -> Response:
        """One of them; raises AppError NOT_FOUND."""
        await self._mesh.sign_in(request)
        wanted = request.path_params["model"]
        for each in await self._models():
            if each.id == wanted:
                return json_response(each.body())
        raise not_found("model")

    async def _models(self) -> Sequence[Listed]:
        """The models as last heard, asked for anew if that is a while ago."""
        if self._mesh.clock.monotonic() - self._heard_at >= _FRESH_S:
            own = [Listed(name, _OWNER) for name in (DEFAULT_MODEL, *TIERS)]
            with acting_as(None), deadline_scope(_ASK_S):
                self._known = [*own, *await self._served(), *await self._embedding()]
            self._heard_at = self._mesh.clock.monotonic()
        return self._known

    async def _served(self) -> list[Listed]:
        answer = await self._mesh.models.ListModels(models_pb2.ListModelsRequest())
        ready = (m for m in answer.models if m.state == models_pb2.MODEL_STATE_READY)
        return [Listed(model.id, model.backend or _OWNER) for model in ready]

    async def _embedding(self) -> list[Listed]:
        """The mesh's own embedding model; left out while embeddings is away."""
        try:
            answer = await self._mesh.embeddings.GetModel(embeddings_pb2.GetModelRequest())
        except AppError:
            return []
        return [Listed(answer.model, _OWNER)]
