"""One map from the mesh's reasons to HTTP, in the shape that OpenAI's clients read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.runtime.errors import AppError, Reason, Violation

INVALID = "invalid_request_error"
_AUTH = "authentication_error"
_SERVER = "server_error"
_LIMIT = "rate_limit_error"
# What nobody reads: the client has gone.
CLIENT_CLOSED_REQUEST = 499
# Clients are told to come back after so long where the mesh itself says nothing.
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Kind:
    """How a reason looks over HTTP: status, OpenAI's `type`, and `code` (the reason if empty)."""

    status: int
    type: str
    code: str = ""


_KINDS: dict[Reason, Kind] = {
    Reason.INTERNAL: Kind(500, _SERVER),
    Reason.INVALID_REQUEST: Kind(400, INVALID),
    Reason.MALFORMED_REQUEST: Kind(400, INVALID),
    Reason.INVALID_PAGE_TOKEN: Kind(400, INVALID),
    Reason.NOT_SUPPORTED: Kind(400, INVALID, "unsupported_parameter"),
    Reason.MODEL_LACKS_ABILITY: Kind(400, INVALID),
    Reason.TOKEN_MISSING: Kind(401, _AUTH, "invalid_api_key"),
    Reason.TOKEN_INVALID: Kind(401, _AUTH, "invalid_api_key"),
    Reason.TOKEN_EXPIRED: Kind(401, _AUTH, "invalid_api_key"),
    Reason.REFRESH_TOKEN_REUSED: Kind(401, _AUTH, "invalid_api_key"),
    Reason.CREDENTIALS_INVALID: Kind(401, _AUTH, "invalid_api_key"),
    # Our own assertion was refused: nothing that the client could mend.
    Reason.CALLER_INVALID: Kind(500, _SERVER),
    Reason.PERMISSION_DENIED: Kind(403, "permission_error"),
    Reason.LOGIN_RATE_LIMITED: Kind(429, _LIMIT),
    Reason.NOT_FOUND: Kind(404, INVALID),
    Reason.ALREADY_EXISTS: Kind(409, INVALID),
    Reason.REQUEST_ID_REUSED: Kind(409, INVALID),
    Reason.VERSION_CONFLICT: Kind(409, INVALID),
    Reason.TURN_SUPERSEDED: Kind(409, INVALID),
    Reason.OVERLOADED: Kind(429, _LIMIT),
    Reason.MESSAGE_TOO_LARGE: Kind(413, INVALID),
    Reason.DEADLINE_EXCEEDED: Kind(504, _SERVER),
    Reason.CANCELLED: Kind(CLIENT_CLOSED_REQUEST, _SERVER),
    Reason.DEPENDENCY_UNAVAILABLE: Kind(503, _SERVER),
    Reason.DRAINING: Kind(503, _SERVER),
    Reason.STORAGE_FULL: Kind(503, _SERVER),
    Reason.MODEL_UNAVAILABLE: Kind(503, _SERVER),
    Reason.MODEL_BAD_RESPONSE: Kind(502, _SERVER),
    Reason.CONTEXT_TOO_LONG: Kind(400, INVALID, "context_length_exceeded"),
    Reason.MODEL_REFUSED: Kind(400, INVALID, "content_filter"),
}
_TRY_AGAIN = frozenset({429, 503})


def kind_of(error: AppError) -> Kind:
    """How an error of the mesh looks over HTTP."""
    if error.reason is Reason.NOT_FOUND and error.metadata.get("type") == "model":
        return Kind(404, INVALID, "model_not_found")
    return _KINDS[error.reason]


def error_body(error: AppError) -> dict[str, Any]:
    """An error as OpenAI's `error` object; the first field at fault is its `param`."""
    kind, violations = kind_of(error), error.violations
    message = error.message
    if violations:
        message += ": " + "; ".join(f"{v.field}: {v.description}" for v in violations)
    return {
        "error": {
            "message": message,
            "type": kind.type,
            "param": violations[0].field if violations else None,
            "code": kind.code or error.reason.value.lower(),
        }
    }


def error_response(error: AppError) -> Response:
    """The response for an error of the mesh."""
    kind = kind_of(error)
    headers = {}
    if kind.status in _TRY_AGAIN:
        # Whole seconds, rounded up: earlier than said would be refused again.
        headers["retry-after"] = str(math.ceil(error.retry_after_s or _RETRY_AFTER_S))
    if kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_response(error_body(error), kind.status, headers)


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`body` as JSON, without spaces."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, status, headers, media_type="application/json")


def http_error_response(error: HTTPException) -> Response:
    """What the router itself refuses: an unknown path or a wrong method."""
    body = {"message": error.detail, "type": INVALID, "param": None, "code": None}
    return json_response({"error": body}, error.status_code, error.headers)


def from_validation(error: ValidationError) -> AppError:
    """The error for a body that is no valid request, naming the fields."""
    violations = [
        Violation(".".join(str(part) for part in each["loc"]) or "body", each["msg"])
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return AppError(Reason.INVALID_REQUEST, "the request is not valid", violations=violations[:8])
