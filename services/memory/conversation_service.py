"""ConversationService: converts and calls the store."""

# ruff: noqa: N802 - methods are named as their RPCs
from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from echomesh.memory.v1 import conversation_pb2 as pb
from echomesh.memory.v1 import conversation_pb2_grpc as pb_grpc
from services.memory import convert, ids, paging
from services.memory.model import BeginTurn, CompleteTurn, NewConversation, NewMessage
from services.memory.store import ConversationStore
from services.runtime.clock import Clock
from services.runtime.errors import invalid


class ConversationServicer(pb_grpc.ConversationServiceServicer):
    """Conversations, messages and turns of the calling user."""

    def __init__(
        self,
        store: ConversationStore,
        clock: Clock,
        new_id: Callable[[], UUID],
        on_write: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._on_write = on_write

    async def CreateConversation(
        self, request: pb.CreateConversationRequest, context: Any
    ) -> pb.CreateConversationResponse:
        """Make a conversation."""
        convert.check_text(request)
        body = [request.conversation_id, request.title, sorted(request.metadata.items())]
        new = NewConversation(
            request_id=request.request_id,
            body_sha256=ids.body_hash({"conversation": body}),
            conversation_id=request.conversation_id or str(self._new_id()),
            title=request.title,
            metadata=dict(request.metadata),
            now=self._clock.now(),
        )
        made = await self._store.create_conversation(convert.owner(), new)
        return pb.CreateConversationResponse(conversation=convert.conversation_message(made))

    async def GetConversation(
        self, request: pb.GetConversationRequest, context: Any
    ) -> pb.GetConversationResponse:
        """Return a conversation."""
        convert.check_text(request)
        found = await self._store.get_conversation(convert.owner(), request.conversation_id)
        return pb.GetConversationResponse(conversation=convert.conversation_message(found))

    async def ListConversations(
        self, request: pb.ListConversationsRequest, context: Any
    ) -> pb.ListConversationsResponse:
        """Return a page of conversations, newest first."""
        convert.check_text(request)
        query = ["conversations", sorted(request.metadata.items())]
        after = paging.decode(request.page_token, query, datetime.fromisoformat, str)
        size = paging.page_size(request.page_size)
        rows = await self._store.list_conversations(
            convert.owner(), dict(request.metadata), after, size + 1
        )
        page, last = rows[:size], rows[size - 1 : size]
        key = [last[0].created_at.isoformat(), last[0].conversation_id] if rows[size:] else None
        return pb.ListConversationsResponse(
            conversations=[convert.conversation_message(row) for row in page],
            next_page_token=paging.encode(query, key) if key else "",
        )

    async def DeleteConversation(
        self, request: pb.DeleteConversationRequest, context: Any
    ) -> pb.DeleteConversationResponse:
        """Delete a conversation and what is remembered of it."""
        convert.check_text(request)
        deleted = await self._store.delete_conversation(
            convert.owner(), request.conversation_id, self._clock.now()
        )
        self._on_write()
        return pb.DeleteConversationResponse(deleted_messages=deleted)

    async def AppendMessages(
        self, request: pb.AppendMessagesRequest, context: Any
    ) -> pb.AppendMessagesResponse:
        """Store messages that were said elsewhere or before."""
        convert.check_text(request)
        now = self._clock.now()
        to = request.conversation_id
        messages = [self._new_message(message, to, now) for message in request.messages]
        done = await self._store.append_messages(
            convert.owner(), request.conversation_id, messages, now
        )
        self._on_write()
        return pb.AppendMessagesResponse(
            message_ids=[str(message_id or "") for message_id in done.message_ids],
            stored=done.stored,
            duplicates=len(messages) - done.stored - len(done.refused),
            refused=[convert.refused(place) for place in done.refused],
        )

    def _new_message(
        self, message: pb.NewMessage, conversation_id: str, now: datetime
    ) -> NewMessage:
        role = convert.role(message.role)
        return NewMessage(
            message_id=self._new_id(),
            request_id=ids.appended_id(message.request_id),
            role=role,
            speaker=message.speaker or role,
            text=message.text,
            said_at=convert.time(message, "time", now),
            metadata=dict(message.metadata),
            body_sha256=_body_hash(message, conversation_id),
        )

    async def GetMessage(
        self, request: pb.GetMessageRequest, context: Any
    ) -> pb.GetMessageResponse:
        """Return a message."""
        message_id = convert.uuid(request.message_id, "message_id")
        found = await self._store.get_message(convert.owner(), message_id)
        return pb.GetMessageResponse(message=convert.message_message(found))

    async def ListMessages(
        self, request: pb.ListMessagesRequest, context: Any
    ) -> pb.ListMessagesResponse:
        """Return a page of a conversation's messages in order."""
        convert.check_text(request)
        query = ["messages", request.conversation_id, request.descending]
        after = paging.decode(request.page_token, query, int)
        size = paging.page_size(request.page_size)
        rows = await self._store.list_messages(
            convert.owner(), request.conversation_id, after[0] if after else None,
            size + 1, request.descending,
        )  # fmt: skip
        page, more = paging.cut(rows, size, lambda row: row.text)
        token = paging.encode(query, [str(page[-1].seq)]) if more else ""
        return pb.ListMessagesResponse(
            messages=[convert.message_message(row) for row in page], next_page_token=token
        )

    async def BeginTurn(self, request: pb.BeginTurnRequest, context: Any) -> pb.BeginTurnResponse:
        """Store the user's message of a turn and make the caller its runner."""
        convert.check_text(request)
        parent = request.parent_message_id
        begun = await self._store.begin_turn(
            convert.owner(),
            BeginTurn(
                request_id=request.request_id,
                body_sha256=request.body_sha256,
                conversation_id=request.conversation_id,
                message_id=self._new_id(),
                text=request.text,
                speaker=request.speaker or "user",
                metadata=dict(request.metadata),
                parent_message_id=convert.uuid(parent, "parent_message_id") if parent else None,
                recent_limit=request.recent_limit,
                now=self._clock.now(),
                message_key=request.message_key,
            ),
        )
        self._on_write()
        return pb.BeginTurnResponse(
            message=convert.message_message(begun.message),
            epoch=begun.epoch,
            reply=convert.message_message(begun.reply) if begun.reply else None,
            recent=[convert.message_message(message) for message in paging.newest(begun.recent)],
        )

    async def CompleteTurn(
        self, request: pb.CompleteTurnRequest, context: Any
    ) -> pb.CompleteTurnResponse:
        """Store the reply of a turn, if its writer still runs it."""
        request.text = request.text.replace("\x00", "")  # a model's slip must not lose the reply
        convert.check_text(request)
        reply = await self._store.complete_turn(
            convert.owner(),
            CompleteTurn(
                request_id=request.request_id,
                epoch=request.epoch,
                reply_id=self._new_id(),
                text=request.text,
                speaker=request.speaker or "assistant",
                finish_reason=convert.finish_reason(request.finish_reason),
                model=request.model,
                metadata=dict(request.metadata),
                now=self._clock.now(),
                explanation=request.explanation,
            ),
        )
        self._on_write()
        return pb.CompleteTurnResponse(reply=convert.message_message(reply))

    async def GetTurn(self, request: pb.GetTurnRequest, context: Any) -> pb.GetTurnResponse:
        """Return a turn by its request or by one of its messages."""
        convert.check_text(request)
        owner = convert.owner()
        if request.message_id:
            message_id = convert.uuid(request.message_id, "message_id")
            turn = await self._store.get_turn_of(owner, message_id)
        elif request.request_id:
            turn = await self._store.get_turn(owner, request.request_id)
        else:
            raise invalid("request_id", "give a request_id or a message_id")
        return convert.turn_message(turn)


def _body_hash(message: pb.NewMessage, conversation_id: str) -> bytes:
    """What a repeated append must carry again, as it was given."""
    given = [message.role, message.speaker, message.text, message.time.ToNanoseconds()]
    fields = {"given": given, "metadata": sorted(message.metadata.items())}
    return ids.body_hash({"conversation": conversation_id, **fields})
