"""The one exception that domain code raises, free of any transport.

`Reason` has the values of `echomesh.common.v1.ErrorReason` (a test keeps them equal); the error
interceptor turns an `AppError` into a google.rpc.Status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a call failed; protos/echomesh/common/v1/errors.proto explains each."""

    INTERNAL = "INTERNAL"
    INVALID_REQUEST = "INVALID_REQUEST"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - a name, no secret
    NOT_SUPPORTED = "NOT_SUPPORTED"
    MODEL_LACKS_ABILITY = "MODEL_LACKS_ABILITY"
    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105 - a name, no secret
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105 - a name, no secret
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a name, no secret
    REFRESH_TOKEN_REUSED = "REFRESH_TOKEN_REUSED"  # noqa: S105 - a name, no secret
    CREDENTIALS_INVALID = "CREDENTIALS_INVALID"
    CALLER_INVALID = "CALLER_INVALID"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    LOGIN_RATE_LIMITED = "LOGIN_RATE_LIMITED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    TURN_SUPERSEDED = "TURN_SUPERSEDED"
    OVERLOADED = "OVERLOADED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    DRAINING = "DRAINING"
    STORAGE_FULL = "STORAGE_FULL"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    MODEL_BAD_RESPONSE = "MODEL_BAD_RESPONSE"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    MODEL_REFUSED = "MODEL_REFUSED"


LATE = "late"
"""Why a part was left out that did not answer within its share of the time."""


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request."""

    field: str
    description: str


@dataclass(eq=False)
class AppError(Exception):
    """A failure that the caller may know about: `message` is shown to them.

    `retry_after_s` (seconds) says when another try may succeed; None says nothing about it.
    """

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    violations: Sequence[Violation] = field(default=(), kw_only=True)
    retry_after_s: float | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def unavailable(dependency: str, retry_after_s: float = 1.0) -> AppError:
    """Something that a call needs is away."""
    return AppError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"{dependency} is away",
        metadata={"dependency": dependency},
        retry_after_s=retry_after_s,
    )


def not_found(kind: str) -> AppError:
    """There is no such thing for this user, or it is somebody else's."""
    return AppError(Reason.NOT_FOUND, f"no such {kind}", metadata={"type": kind})


def invalid(field_path: str, description: str) -> AppError:
    """One field of the request is wrong."""
    violation = Violation(field_path, description)
    return AppError(Reason.INVALID_REQUEST, "the request is not valid", violations=[violation])


def why_left_out(error: AppError | TimeoutError) -> str:
    """Why an answer goes on without a part: `late`, or the error's reason; a metric's label."""
    if isinstance(error, TimeoutError) or error.reason is Reason.DEADLINE_EXCEEDED:
        return LATE
    return error.reason.value
