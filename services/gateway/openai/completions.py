"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from echomesh.routing.v1 import chat_pb2
from services.gateway.errors import from_validation, json_response
from services.gateway.mesh import Mesh, read_body, while_connected
from services.gateway.openai.chunks import Chunks
from services.gateway.openai.headers import asked_in, user_in
from services.gateway.openai.replies import Reply, chat_completion, error_event, text_completion
from services.gateway.openai.schema import ChatCompletionRequest, CompletionRequest, Sampled
from services.gateway.openai.turns import chat_turn, completion_turn
from services.gateway.sessions import Session
from services.gateway.streaming import EventStream
from services.gateway.turning import events_of, frames_of

# So much longer than the reply itself may a client need to take all of it.
_TAKEN_S = 30.0
_Body = TypeVar("_Body", bound=BaseModel)


class Completions:
    """Replies of the mesh, whole or streamed."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def chat(self, request: Request) -> Response:
        """Answer a chat completion."""
        session = await self._mesh.sign_in(request)
        body = parse(ChatCompletionRequest, await read_body(request))
        asked, today = asked_in(request.headers), self._mesh.clock.now().date()
        turn = chat_turn(body, asked, asked.request_id or str(uuid.uuid4()), today)
        return await self._answer(request, session, body, turn, chat=True)

    async def plain(self, request: Request) -> Response:
        """Answer a plain completion."""
        session = await self._mesh.sign_in(request)
        body = parse(CompletionRequest, await read_body(request))
        asked = asked_in(request.headers)
        turn = completion_turn(body, asked, asked.request_id or str(uuid.uuid4()))
        return await self._answer(request, session, body, turn, chat=False)

    async def _answer(
        self,
        request: Request,
        session: Session,
        body: Sampled,
        turn: chat_pb2.ChatRequest,
        *,
        chat: bool,
    ) -> Response:
        user = await self.user(request, session, body.user)
        frames = frames_of(self._mesh.chat, user, turn, self._mesh.settings.reply_timeout_s)
        created = int(self._mesh.clock.now().timestamp())
        reply_id = f"{'chatcmpl' if chat else 'cmpl'}-{turn.request_id}"
        headers = {"x-echomesh-conversation": _header(turn.conversation_id)}
        if not body.stream:
            make = chat_completion if chat else text_completion
            reply = await while_connected(request, _whole(frames))
            return json_response(make(reply, reply_id, created), headers=headers)
        options = body.stream_options
        with_usage = options is not None and options.include_usage
        chunks = Chunks(reply_id, created, chat=chat, with_usage=with_usage)
        events = events_of(frames, chunks.take, error_event)
        first = await while_connected(request, anext(events))
        limit_s = self._mesh.settings.reply_timeout_s + _TAKEN_S
        return EventStream(first, events, headers, limit_s=limit_s)

    async def user(self, request: Request, session: Session, name: str | None) -> Session:
        """The end user that a request is for; its key's own user where it names none."""
        if name:
            return await self._mesh.sessions.as_user(session, name)
        is_app = "app" in session.identity.roles
        told = is_app and self._mesh.settings.trusted_user_headers and user_in(request.headers)
        return await self._mesh.sessions.as_user(session, told) if told else session


def parse(kind: type[_Body], content: bytes) -> _Body:
    """The body of a request; raises AppError INVALID_REQUEST."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise from_validation(error) from None


async def _whole(frames: AsyncGenerator[chat_pb2.ChatResponse, None]) -> Reply:
    reply = Reply()
    async with aclosing(frames):
        async for frame in frames:
            reply.take(frame)
    return reply


def _header(value: str) -> str:
    """A conversation's name as a header: what Latin-1 cannot hold is left out."""
    return value.encode("latin-1", "ignore").decode("latin-1")
