"""The OpenAPI 3.1 description of the OpenAI door, from the models that check the requests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from echomesh import __version__
from services.gateway.openai.headers import (
    CONVERSATION,
    IDEMPOTENCY_KEY,
    MEMORY,
    PERSONA,
)
from services.gateway.openai.schema import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (ChatCompletionRequest, CompletionRequest, EmbeddingRequest)
_ERRORS = {
    "400": "The request is not valid, or asks for what this mesh cannot do.",
    "401": "No API key, or one that is not valid.",
    "403": "The key may not do this.",
    "404": "There is no such model.",
    "409": "This Idempotency-Key was used with another body.",
    "413": "The body is too large.",
    "429": "Too much at once: come back after Retry-After seconds.",
    "502": "A model answered nonsense.",
    "503": "A part of the mesh is away: come back after Retry-After seconds.",
    "504": "The reply did not come in time.",
}
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    CONVERSATION: ("The conversation's name, at most 128 characters.", {"maxLength": 128}),
    MEMORY: (
        "on: recall and store; read: recall, store nothing; off: neither.",
        {"enum": ["on", "read", "off"]},
    ),
    PERSONA: ("A character of the mesh.", {"maxLength": 64}),
    IDEMPOTENCY_KEY: (
        "The same key with the same body is answered once and replayed.",
        {"maxLength": 64},
    ),
}


@lru_cache(maxsize=1)
def description() -> dict[str, Any]:
    """The whole description."""
    _, schemas = models_json_schema([(each, "validation") for each in _BODIES], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Echomesh: the OpenAI door",
            "version": __version__,
            "description": "What OpenAI's clients speak, over a mesh that remembers.",
        },
        "paths": _paths(),
        "components": {
            "schemas": {**schemas["$defs"], **_answers()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _paths() -> dict[str, Any]:
    chat = _post("createChatCompletion", "ChatCompletionRequest", "ChatCompletion", stream=True)
    plain = _post("createCompletion", "CompletionRequest", "Completion", stream=True)
    vectors = _post("createEmbedding", "EmbeddingRequest", "EmbeddingList", stream=False)
    model_id = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/chat/completions": {"post": {**chat, "parameters": _header_parameters()}},
        "/v1/completions": {"post": {**plain, "parameters": _header_parameters()}},
        "/v1/embeddings": {"post": vectors},
        "/v1/models": {"get": _get("listModels", "ModelList")},
        "/v1/models/{model}": {"get": {**_get("getModel", "Model"), "parameters": [model_id]}},
        "/health": {"get": {**_get("health", "Health"), "security": []}},
    }


def _header_parameters() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string", **limits}}
        for name, (text, limits) in _HEADERS.items()
    ]


def _post(operation: str, body: str, answer: str, *, stream: bool) -> dict[str, Any]:
    content = _json(answer)
    if stream:
        content["text/event-stream"] = {"schema": _object(data={"type": "string"})}
    return {
        "operationId": operation,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": _responses(content),
    }


def _get(operation: str, answer: str) -> dict[str, Any]:
    return {"operationId": operation, "responses": _responses(_json(answer))}


def _responses(content: dict[str, Any]) -> dict[str, Any]:
    failed = {
        status: {"description": text, "content": _json("Error")} for status, text in _ERRORS.items()
    }
    return {"200": {"description": "Done.", "content": content}, **failed}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}


def _answers() -> dict[str, Any]:
    """What comes back, as far as a client relies on it."""
    text, number = {"type": "string"}, {"type": "integer"}
    nullable = {"type": ["string", "null"]}
    choices = {"type": "array", "items": {"type": "object"}}
    completion = _object(
        id=text, object=text, created=number, model=text, choices=choices, usage={"type": "object"}
    )
    error = _object(message=text, type=text, param=nullable, code=nullable)
    model = _object(id=text, object=text, created=number, owned_by=text)
    vector = _object(object=text, index=number, embedding={})
    return {
        "ChatCompletion": completion,
        "Completion": completion,
        "EmbeddingList": _object(
            object=text, model=text, data=_array(vector), usage={"type": "object"}
        ),
        "Model": model,
        "ModelList": _object(object=text, data=_array(model)),
        "Health": _object(status=text),
        "Error": _object(error=error),
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
