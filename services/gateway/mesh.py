"""What every route needs of the mesh: its services, and who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from echomesh.auth.v1.auth_pb2_grpc import AuthServiceStub
from echomesh.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from echomesh.memory.v1.conversation_pb2_grpc import ConversationServiceStub
from echomesh.memory.v1.memory_pb2_grpc import MemoryServiceStub
from echomesh.models.v1.models_pb2_grpc import ModelServiceStub
from echomesh.routing.v1.chat_pb2_grpc import ChatServiceStub
from echomesh.routing.v1.routing_pb2_grpc import RoutingServiceStub
from services.gateway.config import GatewaySettings
from services.gateway.sessions import Session, Sessions, Validator
from services.runtime.channel import ChannelFactory
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason

T = TypeVar("T")
# Larger than any request that the mesh takes: its messages end at 4 MiB.
MAX_BODY_BYTES = 4 * 2**20
# A client that sends its body more slowly than this holds a place for nothing.
_BODY_S = 30.0


@dataclass(frozen=True)
class Mesh:
    """The services behind the gateway, as stubs, and who may call them."""

    settings: GatewaySettings
    sessions: Sessions
    clock: Clock
    chat: Any
    routing: Any
    conversations: Any
    memories: Any
    models: Any
    embeddings: Any

    async def sign_in(self, request: Request) -> Session:
        """The session of a request's bearer; raises AppError TOKEN_MISSING and its like."""
        return await self.sessions.of_bearer(request.headers.get("authorization"))


def connect(
    settings: GatewaySettings, channels: ChannelFactory, validator: Validator, clock: Clock
) -> Mesh:
    """Return the mesh behind `channels`."""
    return Mesh(
        settings=settings,
        sessions=Sessions(AuthServiceStub(channels.channel("auth")), validator, clock),
        clock=clock,
        chat=ChatServiceStub(channels.channel("routing")),
        routing=RoutingServiceStub(channels.channel("routing")),
        conversations=ConversationServiceStub(channels.channel("memory")),
        memories=MemoryServiceStub(channels.channel("memory")),
        models=ModelServiceStub(channels.channel("models")),
        embeddings=EmbeddingsServiceStub(channels.channel("embeddings")),
    )


async def read_body(request: Request) -> bytes:
    """The whole body; raises AppError MESSAGE_TOO_LARGE, INVALID_REQUEST, CANCELLED."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise AppError(Reason.MESSAGE_TOO_LARGE, "the body is larger than 4 MiB")
                parts.append(part)
    except TimeoutError:
        raise AppError(Reason.INVALID_REQUEST, "the body did not come in time") from None
    except ClientDisconnect:
        raise AppError(Reason.CANCELLED, "the client went away") from None
    return b"".join(parts)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    The body must have been read. Raises AppError CANCELLED for a client that left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise AppError(Reason.CANCELLED, "the client went away")
    finally:
        for each in (task, gone):
            each.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task  # what it began is ended before the request is


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
