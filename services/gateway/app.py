"""The ASGI application: the routes of every door, errors in one shape, and what is observed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.gateway.errors import error_response, http_error_response, json_response
from services.gateway.mesh import Mesh
from services.gateway.observing import Observed
from services.gateway.openai.routes import openai_routes
from services.gateway.page.routes import page_routes
from services.runtime.errors import AppError, Reason

# What a page may read of an answer's head.
_EXPOSED = ("x-request-id", "x-echomesh-conversation", "retry-after")


def routes_of(mesh: Mesh) -> list[BaseRoute]:
    """Every route of the gateway; a door adds its own here."""
    return [Route("/health", health, methods=["GET"]), *openai_routes(mesh), *page_routes(mesh)]


def make_app(mesh: Mesh) -> Any:
    """Return the ASGI application over a mesh."""
    app = application(routes_of(mesh), max_requests=mesh.settings.max_requests)
    return shared_with(app, mesh.settings.cors_origins)


def shared_with(app: Any, origins: Collection[str]) -> Any:
    """Return `app` for pages of `origins` too; what they send is a key, never a cookie.

    It is the outermost part, or a browser would hide from a page that there is too much at once.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
    )


def application(routes: Sequence[BaseRoute], *, max_requests: int) -> Any:
    """Return an ASGI application of `routes`; more than `max_requests` at once are refused."""
    handlers: dict[Any, Any] = {
        AppError: _app_error,
        HTTPException: _http_error,
        Exception: _failure,
    }
    inner = Starlette(routes=list(routes), exception_handlers=handlers)
    # Paths are what they are: a redirect would lose the body of a POST.
    inner.router.redirect_slashes = False
    return Observed(inner, max_requests=max_requests)


async def health(_: Request) -> Response:
    """The gateway's own health; it never follows a dependency."""
    return json_response({"status": "ok"})


async def _app_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101 - what it is registered for
    return error_response(error)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    return http_error_response(error)


async def _failure(_: Request, __: Exception) -> Response:
    """What the client is told of a defect of ours: nothing but its trace, where it is logged."""
    return error_response(AppError(Reason.INTERNAL, "something went wrong here"))
