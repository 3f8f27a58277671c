"""What is kept of a person, for the page: conversations, messages, memories, and why a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.requests import Request
from starlette.responses import Response

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.routing.v1 import routing_pb2
from services.gateway.errors import json_response
from services.gateway.mesh import Mesh, read_body, while_connected
from services.gateway.page import shapes
from services.gateway.page.schema import (
    CorrectionBody,
    MessagesOf,
    OfConversation,
    Paging,
    RecallBody,
    WhyOf,
    asked,
    parsed,
)
from services.gateway.sessions import Session
from services.runtime.errors import AppError, Reason

T = TypeVar("T")
# Nothing here waits for a model.
_ASK_S = 10.0


class Records:
    """The page's calls about what is stored; each is about the signed-in user's own."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def session(self, _: Request, session: Session) -> Response:
        """Who the key is of."""
        identity = session.identity
        return _told({"tenant_id": identity.tenant_id, "user_id": identity.user_id})

    async def why(self, request: Request, session: Session) -> Response:
        """Why a reply is as it is."""
        of = asked(WhyOf, request)
        wanted = routing_pb2.ExplainRequest(request_id=of.request_id, message_id=of.message_id)
        found = await self._ask(request, session, self._mesh.routing.Explain, wanted)
        return _told(shapes.explanation(found))

    async def conversations(self, request: Request, session: Session) -> Response:
        """A page of conversations, newest first, each with how it begins."""
        page = asked(Paging, request)
        wanted = conversation_pb2.ListConversationsRequest(
            page_size=page.page_size, page_token=page.page_token
        )

        async def with_openings(ask: conversation_pb2.ListConversationsRequest) -> Any:
            found = await self._mesh.conversations.ListConversations(ask)
            openings = await asyncio.gather(*(self._opening(c.id) for c in found.conversations))
            return found, openings

        found, openings = await self._ask(request, session, with_openings, wanted)
        listed = [
            shapes.conversation(each, opening)
            for each, opening in zip(found.conversations, openings, strict=True)
        ]
        return _told({"conversations": listed, "next_page_token": found.next_page_token})

    async def _opening(self, conversation_id: str) -> conversation_pb2.Message | None:
        wanted = conversation_pb2.ListMessagesRequest(conversation_id=conversation_id, page_size=1)
        try:
            found = await self._mesh.conversations.ListMessages(wanted)
        except AppError as error:
            if error.reason is Reason.NOT_FOUND:
                return None  # deleted since it was listed
            raise
        return found.messages[0] if found.messages else None

    async def delete_conversation(self, request: Request, session: Session) -> Response:
        """Delete a conversation with its messages and their memories."""
        of = asked(OfConversation, request)
        wanted = conversation_pb2.DeleteConversationRequest(conversation_id=of.conversation_id)
        done = await self._ask(
            request, session, self._mesh.conversations.DeleteConversation, wanted
        )
        return _told({"deleted_messages": done.deleted_messages})

    async def messages(self, request: Request, session: Session) -> Response:
        """A page of a conversation's messages, newest first."""
        of = asked(MessagesOf, request)
        wanted = conversation_pb2.ListMessagesRequest(
            conversation_id=of.conversation_id,
            page_size=of.page_size,
            page_token=of.page_token,
            descending=True,
        )
        found = await self._ask(request, session, self._mesh.conversations.ListMessages, wanted)
        listed = [shapes.message(each) for each in found.messages]
        return _told({"messages": listed, "next_page_token": found.next_page_token})

    async def memories(self, request: Request, session: Session) -> Response:
        """A page of memories, newest first."""
        page = asked(Paging, request)
        wanted = memory_pb2.ListMemoriesRequest(
            page_size=page.page_size, page_token=page.page_token
        )
        found = await self._ask(request, session, self._mesh.memories.ListMemories, wanted)
        listed = [shapes.memory(each) for each in found.memories]
        return _told({"memories": listed, "next_page_token": found.next_page_token})

    async def recall(self, request: Request, session: Session) -> Response:
        """The memories that fit a query, best first, each with why."""
        body = parsed(RecallBody, await read_body(request))
        wanted = memory_pb2.RecallRequest(query=body.query, limit=body.limit)
        found = await self._ask(request, session, self._mesh.memories.Recall, wanted)
        hits = [shapes.recall_hit(each) for each in found.hits]
        return _told({"hits": hits, "degraded": list(found.degraded)})

    async def memory(self, request: Request, session: Session) -> Response:
        """One memory as it is now."""
        wanted = memory_pb2.GetMemoryRequest(memory_id=request.path_params["memory_id"])
        found = await self._ask(request, session, self._mesh.memories.GetMemory, wanted)
        return _told(shapes.memory(found.memory))

    async def correct(self, request: Request, session: Session) -> Response:
        """Give a memory another text; raises AppError VERSION_CONFLICT."""
        body = parsed(CorrectionBody, await read_body(request))
        wanted = memory_pb2.UpdateMemoryRequest(
            request_id=body.request_id,
            memory=memory_pb2.Memory(id=request.path_params["memory_id"], text=body.text),
            update_mask=FieldMask(paths=["text"]),
            expected_version=body.expected_version,
        )
        done = await self._ask(request, session, self._mesh.memories.UpdateMemory, wanted)
        return _told(shapes.memory(done.memory))

    async def forget(self, request: Request, session: Session) -> Response:
        """Erase a memory and the message that it came from."""
        wanted = memory_pb2.ForgetMemoryRequest(memory_id=request.path_params["memory_id"])
        await self._ask(request, session, self._mesh.memories.ForgetMemory, wanted)
        return _told({"forgotten": wanted.memory_id})

    async def _ask(
        self, request: Request, session: Session, call: Callable[[Any], Awaitable[T]], wanted: Any
    ) -> T:
        """What the mesh answers the signed-in user within `_ASK_S`."""

        async def answer() -> T:
            return await call(wanted)

        with session.acting(_ASK_S):
            return await while_connected(request, answer())


def _told(body: Any) -> Response:
    """An answer that no cache keeps: it is one person's."""
    return json_response(body, headers={"cache-control": "no-store"})
