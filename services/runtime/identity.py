"""Who a call is for (the subject) and which service makes it (the caller)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from services.runtime.errors import AppError, Reason


@dataclass(frozen=True)
class Identity:
    """A verified subject, and the service that calls on its behalf, if any.

    `expires_at` is in seconds since 1970; it is checked when a call starts and ends none.
    """

    tenant_id: str
    user_id: str
    roles: frozenset[str] = frozenset()
    caller: str | None = None
    expires_at: float = math.inf


_identity: ContextVar[Identity | None] = ContextVar("identity", default=None)
_token: ContextVar[str | None] = ContextVar("token", default=None)


def current_identity() -> Identity:
    """The subject of the running call; raises AppError TOKEN_MISSING if it has none."""
    identity = _identity.get()
    if identity is None:
        raise AppError(Reason.TOKEN_MISSING, "this call needs a signed-in user")
    return identity


def identity_or_none() -> Identity | None:
    """The subject of the running call, if it has one."""
    return _identity.get()


def current_token() -> str | None:
    """The subject's access token, to be handed on; None for jobs and public calls."""
    return _token.get()


@contextmanager
def acting_as(identity: Identity | None, token: str | None = None) -> Iterator[None]:
    """Run as a subject: for the length of a call, or of a job's work for one user."""
    identity_reset, token_reset = _identity.set(identity), _token.set(token)
    try:
        yield
    finally:
        _identity.reset(identity_reset)
        _token.reset(token_reset)
