"""POST reply: a message in, the events of its reply out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.mesh import Mesh, read_body, while_connected
from services.gateway.page.frames import error_event, event_of
from services.gateway.page.schema import ReplyBody, parsed
from services.gateway.page.turns import turn_of
from services.gateway.sessions import Session
from services.gateway.streaming import EventStream
from services.gateway.turning import events_of, frames_of

# So much longer than the reply itself may a browser need to take all of it.
_TAKEN_S = 30.0


class Replies:
    """Replies of the mesh as streams of events."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def reply(self, request: Request, session: Session) -> Response:
        """Answer a message; closing the connection stops the generation."""
        turn = turn_of(parsed(ReplyBody, await read_body(request)))
        timeout_s = self._mesh.settings.reply_timeout_s
        frames = frames_of(self._mesh.chat, session, turn, timeout_s)
        events = events_of(frames, event_of, error_event)
        first = await while_connected(request, anext(events))
        return EventStream(first, events, {}, limit_s=timeout_s + _TAKEN_S)
