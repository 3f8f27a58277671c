"""From the page's message to a turn of the mesh. Pure.

**What is stored.** A message and its reply, unless the turn is private: then neither, and nothing
is recalled either. Asked again for another reply (the same `message_key`) the message is found and
not stored a second time; each reply is. See docs/page.md.
"""

from __future__ import annotations

from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from services.gateway.page.schema import ReplyBody
from services.gateway.page.shapes import KEY

_ROLES = {
    "user": models_pb2.CHAT_ROLE_USER,
    "assistant": models_pb2.CHAT_ROLE_ASSISTANT,
}


def turn_of(body: ReplyBody) -> chat_pb2.ChatRequest:
    """The turn that the page asks for."""
    turn = chat_pb2.ChatRequest(
        request_id=body.request_id,
        conversation_id=body.conversation_id,
        text=body.text,
        parent_message_id=body.parent_message_id,
        message_key=body.message_key,
        store=not body.private,
        recall=not body.private,
    )
    if body.message_key:
        turn.metadata[KEY] = body.message_key
    if body.private or body.history is not None:
        # A private turn sees what its own page shows, and never what is stored.
        turn.history.SetInParent()
        for said in body.history or ():
            turn.history.messages.add(role=_ROLES[said.role], content=said.text)
    return turn
