"""The part of the client that is about conversations and their messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from echomesh import _types
from echomesh._calls import Calls
from echomesh._errors import EchomeshError
from echomesh.memory.v1 import conversation_pb2, conversation_pb2_grpc

# One call takes at most 500 messages and 4 MiB; half of that is stored well within its time.
_PART_MESSAGES = 500
_PART_BYTES = 2 * 2**20


class Conversations(Calls):
    """The user's conversations."""

    async def import_messages(
        self, conversation_id: str, messages: Sequence[_types.NewMessage]
    ) -> _types.ImportResult:
        """Store earlier messages; one whose request id was used for another is left out.

        Many or long ones are sent in several calls, each of which is one transaction.
        """
        stored = duplicates = 0
        refused: list[str] = []
        for part in _parts([_types.new_message(m) for m in messages]):
            answer = await self._append(conversation_id, part)
            stored += answer.stored
            duplicates += answer.duplicates
            refused += [part[each.index].request_id for each in answer.refused]
        return _types.ImportResult(stored, duplicates, tuple(refused))

    async def _append(
        self, conversation_id: str, part: Sequence[conversation_pb2.NewMessage]
    ) -> Any:
        """Store one part; that all of it is refused is no failure of an import."""
        request = conversation_pb2.AppendMessagesRequest(
            conversation_id=conversation_id, messages=part
        )
        try:
            return await self._conversation("AppendMessages", request)
        except EchomeshError as error:
            if error.reason != "REQUEST_ID_REUSED":
                raise
        refused = [conversation_pb2.RefusedMessage(index=place) for place in range(len(part))]
        return conversation_pb2.AppendMessagesResponse(refused=refused)

    async def conversations(self, *, page_size: int = 50) -> AsyncIterator[_types.Conversation]:
        """All conversations, newest first."""
        token = ""
        while True:
            request = conversation_pb2.ListConversationsRequest(
                page_size=page_size, page_token=token
            )
            answer = await self._conversation("ListConversations", request)
            for item in answer.conversations:
                yield _types.conversation(item)
            token = answer.next_page_token
            if not token:
                return

    async def messages(
        self, conversation_id: str, *, page_size: int = 100, newest_first: bool = False
    ) -> AsyncIterator[_types.Message]:
        """The messages of a conversation in order, or backwards from the newest."""
        token = ""
        while True:
            request = conversation_pb2.ListMessagesRequest(
                conversation_id=conversation_id,
                page_size=page_size,
                page_token=token,
                descending=newest_first,
            )
            answer = await self._conversation("ListMessages", request)
            for item in answer.messages:
                yield _types.message(item)
            token = answer.next_page_token
            if not token:
                return

    async def delete_conversation(self, conversation_id: str) -> int:
        """Delete a conversation with its memories; returns how many messages it had."""
        request = conversation_pb2.DeleteConversationRequest(conversation_id=conversation_id)
        answer = await self._conversation("DeleteConversation", request)
        return int(answer.deleted_messages)

    async def _conversation(self, method: str, request: Any) -> Any:
        return await self._unary(conversation_pb2_grpc.ConversationServiceStub, method, request)


def _parts(
    messages: Sequence[conversation_pb2.NewMessage],
) -> Iterator[list[conversation_pb2.NewMessage]]:
    """Split messages, in order, into what one call may carry."""
    part: list[conversation_pb2.NewMessage] = []
    size_bytes = 0
    for message in messages:
        message_bytes = message.ByteSize()
        if len(part) == _PART_MESSAGES or (part and size_bytes + message_bytes > _PART_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append(message)
        size_bytes += message_bytes
    if part:
        yield part
