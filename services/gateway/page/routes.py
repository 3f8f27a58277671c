"""The paths of the chat page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from services.gateway.mesh import Mesh
from services.gateway.page.chat import Replies
from services.gateway.page.files import Files
from services.gateway.page.records import Records
from services.gateway.sessions import Session

PAGE = "/chat/"
# Handlers of the page's calls: nobody gets this far without a key.
Handler: TypeAlias = Callable[[Request, Session], Awaitable[Response]]


def page_routes(mesh: Mesh) -> list[BaseRoute]:
    """The page's files under /chat, what it calls under /chat/api, and the way there from /."""
    files, replies, records = Files(), Replies(mesh), Records(mesh)

    def api(method: str, path: str, handler: Handler) -> Route:
        async def signed_in(request: Request) -> Response:
            return await handler(request, await mesh.sign_in(request))

        return Route(f"/chat/api/{path}", signed_in, methods=[method])

    return [
        Route("/", _to_page, methods=["GET"]),
        Route("/chat", _to_page, methods=["GET"]),
        Route(PAGE, files.index, methods=["GET"]),
        api("GET", "session", records.session),
        api("POST", "reply", replies.reply),
        api("GET", "why", records.why),
        api("GET", "conversations", records.conversations),
        api("DELETE", "conversations", records.delete_conversation),
        api("GET", "messages", records.messages),
        api("GET", "memories", records.memories),
        api("POST", "memories/recall", records.recall),
        api("GET", "memories/{memory_id}", records.memory),
        api("PATCH", "memories/{memory_id}", records.correct),
        api("DELETE", "memories/{memory_id}", records.forget),
        Route("/chat/{name}", files.file, methods=["GET"]),
    ]


async def _to_page(_: Request) -> Response:
    # 307 is kept by no cache: another release may have another page.
    return RedirectResponse(PAGE, 307)
