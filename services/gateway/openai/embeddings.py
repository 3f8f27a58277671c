"""POST /v1/embeddings."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from echomesh.embeddings.v1 import embeddings_pb2
from echomesh.models.v1 import models_pb2
from services.gateway.errors import json_response
from services.gateway.mesh import Mesh, read_body, while_connected
from services.gateway.openai.completions import parse
from services.gateway.openai.schema import DEFAULT_MODEL, EmbeddingRequest
from services.gateway.sessions import Session
from services.runtime.errors import AppError, Reason, invalid, not_found

# What one call to the mesh takes; see EmbedRequest.
_BATCH = 256
# An answer is at most 4 MiB, and the vectors of another model may have thousands of numbers.
_NAMED_BATCH = 64
MAX_TEXT_BYTES = 65_536
_FLOAT_BYTES = 4


class Embeddings:
    """Vectors of texts, by the mesh's own model or another that makes them."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def create(self, request: Request) -> Response:
        """Embed one text or many."""
        session = await self._mesh.sign_in(request)
        body = parse(EmbeddingRequest, await read_body(request))
        texts = [body.input] if isinstance(body.input, str) else body.input
        _check(texts)
        model, found = await while_connected(request, self._embed(session, body.model, texts))
        _check_dimensions(body, found)
        encode = _base64 if body.encoding_format == "base64" else _floats
        data = [
            {"object": "embedding", "index": index, "embedding": encode(each.vector)}
            for index, each in enumerate(found)
        ]
        tokens = sum(each.tokens for each in found)
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_response({"object": "list", "data": data, "model": model, "usage": used})

    async def _embed(
        self, session: Session, model: str, texts: Sequence[str]
    ) -> tuple[str, list[Any]]:
        """The model that made them, and the vectors in order."""
        found: list[Any] = []
        with session.acting(self._mesh.settings.reply_timeout_s):
            own = (await self._mesh.embeddings.GetModel(embeddings_pb2.GetModelRequest())).model
            is_own = model in (DEFAULT_MODEL, own)
            for batch in _batches(texts, _BATCH if is_own else _NAMED_BATCH):
                if is_own:
                    asked = embeddings_pb2.EmbedRequest(texts=batch)
                    found.extend((await self._mesh.embeddings.Embed(asked)).embeddings)
                else:
                    named = models_pb2.EmbedRequest(model=model, texts=batch)
                    found.extend((await self._by_model(named)).embeddings)
        return own if is_own else model, found

    async def _by_model(self, request: models_pb2.EmbedRequest) -> Any:
        if not request.model:
            raise not_found("model")
        return await self._mesh.models.Embed(request)


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _check(texts: Sequence[str]) -> None:
    for index, text in enumerate(texts):
        if not text:
            raise invalid(f"input.{index}", "must not be empty")
        if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
            text_limit = f"input.{index}: more than {MAX_TEXT_BYTES} bytes of text"
            raise AppError(Reason.CONTEXT_TOO_LONG, text_limit)


def _check_dimensions(body: EmbeddingRequest, found: Sequence[Any]) -> None:
    """A vector cannot be cut: of the mesh's models none was trained for that."""
    has = len(found[0].vector) // _FLOAT_BYTES
    if body.dimensions is not None and body.dimensions != has:
        raise invalid("dimensions", f"this model's vectors have {has}")


def _floats(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // _FLOAT_BYTES}f", vector))


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
