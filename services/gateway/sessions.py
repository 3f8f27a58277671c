"""Who a request is from: API keys and access tokens as bearer, and end users of an application."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from echomesh.auth.v1 import auth_pb2
from services.runtime.cache import BoundedCache
from services.runtime.clock import Clock
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, acting_as

_BEARER = "bearer "
_MAX_SESSIONS = 10_000
# A session is made anew so long before its token expires: no call starts with a stale one.
_RENEW_BEFORE_S = 30.0
# A key that auth refused is refused here for so long, so that a broken client costs auth little.
_REFUSED_S = 2.0
_SIGN_IN_S = 5.0


@dataclass(frozen=True)
class Session:
    """A signed-in user: who it is, and the access token that proves it."""

    identity: Identity
    token: str

    @contextmanager
    def acting(self, timeout_s: float) -> Iterator[None]:
        """Make calls to the mesh as this user, all within `timeout_s` seconds."""
        with acting_as(self.identity, self.token), deadline_scope(timeout_s):
            yield


class Validator(Protocol):
    """Turns an access token into whom it proves; see `TokenValidator`."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        """See `TokenValidator.validate`."""
        ...


class Sessions:
    """Signs in by key, and keeps the sign-ins for as long as their tokens live.

    `auth` is an AuthService stub.
    """

    def __init__(self, auth: Any, validator: Validator, clock: Clock) -> None:
        self._auth = auth
        self._validator = validator
        self._clock = clock
        self._kept: BoundedCache[bytes, Session] = BoundedCache(
            max_items=_MAX_SESSIONS, clock=clock
        )
        self._refused: BoundedCache[bytes, AppError] = BoundedCache(
            max_items=_MAX_SESSIONS, ttl_s=_REFUSED_S, clock=clock
        )
        self._signing_in: dict[bytes, asyncio.Task[Session]] = {}

    async def of_bearer(self, authorization: str | None) -> Session:
        """The session of an Authorization header: an API key, or an access token of the mesh.

        Raises AppError TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, CREDENTIALS_INVALID.
        """
        if not authorization:
            raise AppError(Reason.TOKEN_MISSING, "give an API key: Authorization: Bearer KEY")
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise AppError(Reason.TOKEN_INVALID, "the authorization must be a bearer token")
        secret = authorization[len(_BEARER) :].strip()
        if secret.count(".") == 2:  # a JWT; no API key has a dot
            return Session(await self._validator.validate(secret), secret)
        return await self._shared(_digest("key", secret), lambda: self._by_key(secret))

    async def as_user(self, app: Session, external_user_id: str) -> Session:
        """The session of an application's end user; raises AppError PERMISSION_DENIED."""
        tenant_id = app.identity.tenant_id
        digest = _digest("user", tenant_id, app.identity.user_id, external_user_id)
        return await self._shared(digest, lambda: self._by_app(app, external_user_id))

    async def _by_key(self, api_key: str) -> Session:
        request = auth_pb2.ExchangeApiKeyRequest(api_key=api_key)
        try:
            answer = await self._auth.ExchangeApiKey(request)
        except AppError as error:
            if error.reason is not Reason.INVALID_REQUEST:
                raise
            # What cannot be a key is a wrong one, and says nothing of the request's own fields.
            raise AppError(Reason.CREDENTIALS_INVALID, "the API key is not valid") from error
        return await self._session(answer.tokens)

    async def _by_app(self, app: Session, external_user_id: str) -> Session:
        request = auth_pb2.ExchangeTokenRequest(external_user_id=external_user_id)
        with acting_as(app.identity, app.token):
            answer = await self._auth.ExchangeToken(request)
        return await self._session(answer.tokens)

    async def _session(self, tokens: auth_pb2.Tokens) -> Session:
        return Session(await self._validator.validate(tokens.access_token), tokens.access_token)

    async def _shared(self, digest: bytes, sign_in: Callable[[], Awaitable[Session]]) -> Session:
        """The kept session, or a new one; all who ask at once share one sign-in."""
        kept = self._kept.get(digest)
        if kept is not None:
            return kept
        refused = self._refused.get(digest)
        if refused is not None:
            raise refused
        task = self._signing_in.get(digest)
        if task is None:
            task = self._signing_in[digest] = asyncio.create_task(self._make(digest, sign_in))
            task.add_done_callback(lambda done: self._signed_in(digest, done))
        return await asyncio.shield(task)

    def _signed_in(self, digest: bytes, done: asyncio.Task[Session]) -> None:
        del self._signing_in[digest]
        if not done.cancelled():
            done.exception()  # whoever asked may have gone; it is no surprise then

    async def _make(self, digest: bytes, sign_in: Callable[[], Awaitable[Session]]) -> Session:
        try:
            with deadline_scope(_SIGN_IN_S, extend=True):
                session = await sign_in()
        except AppError as error:
            if error.reason in (Reason.CREDENTIALS_INVALID, Reason.PERMISSION_DENIED):
                self._refused.put(digest, error)
            raise
        left_s = session.identity.expires_at - self._clock.now().timestamp()
        if left_s > _RENEW_BEFORE_S:
            self._kept.put(digest, session, ttl_s=left_s - _RENEW_BEFORE_S)
        return session


def _digest(*parts: str) -> bytes:
    """What a session is kept by: no secret is held in memory for longer than its request."""
    return hashlib.sha256("\0".join(parts).encode()).digest()
