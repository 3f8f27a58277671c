"""The paths of the OpenAI door."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.gateway.errors import json_response
from services.gateway.mesh import Mesh
from services.gateway.openai.completions import Completions
from services.gateway.openai.description import description
from services.gateway.openai.embeddings import Embeddings
from services.gateway.openai.models import Models


def openai_routes(mesh: Mesh) -> list[BaseRoute]:
    """The routes under /v1, and their description."""
    completions, embeddings, models = Completions(mesh), Embeddings(mesh), Models(mesh)
    return [
        Route("/v1/chat/completions", completions.chat, methods=["POST"]),
        Route("/v1/completions", completions.plain, methods=["POST"]),
        Route("/v1/embeddings", embeddings.create, methods=["POST"]),
        Route("/v1/models", models.every, methods=["GET"]),
        Route("/v1/models/{model:path}", models.one, methods=["GET"]),
        Route("/openapi.json", _described, methods=["GET"]),
    ]


async def _described(_: Request) -> Response:
    """The OpenAPI description of this door."""
    return json_response(description())
