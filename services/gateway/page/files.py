"""The page's files, read once, with the headers that keep a browser to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page loads nothing but its own files, runs no inline script, calls nobody but its own
# gateway, sends no form, sits in no frame, and cannot turn text into markup.
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
HEADERS = {
    "content-security-policy": "; ".join(_POLICY),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked for anew each time and answered by 304 while nothing changed: never half an update.
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class File:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


class Files:
    """Every file of the page, by its name."""

    def __init__(self) -> None:
        paths = (path for path in _FOLDER.iterdir() if path.suffix in _TYPES)
        self._files = {path.name: _read(path) for path in paths}

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return _response(request, self._files[INDEX])

    async def file(self, request: Request) -> Response:
        """One of its files, or 404."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            return Response("no such file\n", 404, media_type="text/plain")
        return _response(request, found)


def _read(path: Path) -> File:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return File(content, _TYPES[path.suffix], etag)


def _response(request: Request, file: File) -> Response:
    headers = {**HEADERS, "etag": file.etag}
    held = request.headers.get("if-none-match", "")
    if file.etag in (each.strip().removeprefix("W/") for each in held.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
