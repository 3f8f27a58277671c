"""Checking access tokens, and the short assertions by which services name themselves.

Both are JWTs signed with Ed25519. An access token is checked against auth's published keys,
which are kept on disk, so that it verifies while auth is away. An assertion is signed with the
calling service's own key and lasts 60 s; for a job it also names the subject.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from jwt.algorithms import OKPAlgorithm

from services.runtime.cache import BoundedCache
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason, unavailable
from services.runtime.identity import Identity
from services.runtime.logs import get_logger

ISSUER = "echomesh-auth"
AUDIENCE = "echomesh"
ASSERTION_TTL_S = 60
# A cached assertion is used for this long, which leaves time for the call to arrive.
_ASSERTION_REUSE_S = 30.0
_CACHED_TOKENS = 10_000
# Clocks of two machines may differ by this much.
_LEEWAY_S = 5
# An unknown key id asks auth at most this often, so that junk tokens cannot hammer it.
_MIN_REFRESH_S = 1.0
# A key that auth publishes is known everywhere after this time.
_REFRESH_S = 20.0

FetchJwks = Callable[[], Awaitable[str]]


class KeySet:
    """Auth's public keys by key id, kept on disk."""

    def __init__(self, path: Path, fetch: FetchJwks | None, clock: Clock) -> None:
        self._path = path
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._last_try = float("-inf")
        self._lock = asyncio.Lock()
        self._load()

    @property
    def empty(self) -> bool:
        """Whether no key was ever found: then auth is to blame, not the token."""
        return not self._keys

    async def key(self, key_id: str) -> Ed25519PublicKey | None:
        """The key of an id; an unknown one is looked for at auth."""
        if key_id not in self._keys:
            await self.refresh()
        return self._keys.get(key_id)

    def knows(self, key_id: str) -> bool:
        """Whether this key is published still, as far as is known here."""
        return key_id in self._keys

    async def refresh(self) -> None:
        """Ask auth for its keys; failing that, add what the file holds to those known."""
        async with self._lock:
            if self._clock.monotonic() - self._last_try < _MIN_REFRESH_S:
                return
            self._last_try = self._clock.monotonic()
            if self._fetch is None:
                self._load()
                return
            try:
                text = await self._fetch()
                self._take(text)
            except (AppError, ValueError) as error:
                get_logger().warning("jwks_refresh_failed", error=type(error).__name__)
                # The file may be the older one: on a full disk it could not be written.
                known = self._keys
                self._load()
                self._keys = self._keys | known
                return
            self._save(text)

    async def keep_fresh(self) -> None:
        """Refresh for ever, so that a new key is known before it signs."""
        while True:
            await self.refresh()
            await asyncio.sleep(_REFRESH_S)

    def _load(self) -> None:
        try:
            self._take(self._path.read_text())
        except (OSError, ValueError):
            # No file yet, or half of one: auth will be asked.
            return

    def _take(self, text: str) -> None:
        """Use these keys; raises ValueError, and changes nothing, if they are nonsense."""
        keys = {}
        try:
            for jwk in json.loads(text)["keys"]:
                key = OKPAlgorithm.from_jwk(jwk)
                if isinstance(key, Ed25519PublicKey):
                    keys[str(jwk["kid"])] = key
        except (TypeError, KeyError, jwt.PyJWTError) as error:
            raise ValueError("this is no key set") from error
        self._keys = keys

    def _save(self, text: str) -> None:
        draft = self._path.with_name(f".{self._path.name}.{id(self)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text)
            draft.replace(self._path)
        except OSError as error:
            get_logger().warning("jwks_not_saved", error=error.strerror)


class TokenValidator:
    """Turns an access token into the identity it proves."""

    def __init__(self, keys: KeySet, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        # Identity and id of the key that proved it: a key that is gone proves nothing any more.
        self._cache: BoundedCache[bytes, tuple[Identity, str]] = BoundedCache(
            max_items=_CACHED_TOKENS, clock=clock
        )

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        """The identity of a token; raises AppError TOKEN_INVALID or TOKEN_EXPIRED.

        `past_expiry_s`: for how long after its expiry it still counts; see `authenticate`.
        """
        digest = hashlib.sha256(token.encode()).digest()
        found = self._cache.get(digest)
        if found is None or not self._keys.knows(found[1]):
            found = await self._verify(token)
            self._cache.put(digest, found)
        identity = found[0]
        if identity.expires_at + past_expiry_s <= self._clock.now().timestamp():
            raise AppError(Reason.TOKEN_EXPIRED, "the token has expired")
        return identity

    async def _verify(self, token: str) -> tuple[Identity, str]:
        key, key_id = await self._key_of(token)
        claims = _decode(token, key, AUDIENCE, Reason.TOKEN_INVALID, verify_exp=False)
        if claims["iss"] != ISSUER:
            raise AppError(Reason.TOKEN_INVALID, "the token is not valid")
        return _identity_of(claims), key_id

    async def _key_of(self, token: str) -> tuple[Ed25519PublicKey, str]:
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid", ""))
        except jwt.PyJWTError:
            raise AppError(Reason.TOKEN_INVALID, "the token is not valid") from None
        key = await self._keys.key(key_id)
        if key is None and self._keys.empty:
            raise unavailable("auth")
        if key is None:
            raise AppError(Reason.TOKEN_INVALID, "the token is not valid")
        return key, key_id


def _identity_of(claims: Mapping[str, Any]) -> Identity:
    """What a verified token's claims say. Raises AppError TOKEN_INVALID."""
    try:
        tenant_id, user_id = claims["tid"], claims["sub"]
        if not (isinstance(tenant_id, str) and tenant_id and isinstance(user_id, str) and user_id):
            raise ValueError("a token names its tenant and user")
        return Identity(
            tenant_id=tenant_id,
            user_id=user_id,
            roles=frozenset(claims.get("roles", ())),
            expires_at=_moment(claims["exp"]),
        )
    except (KeyError, TypeError, ValueError):
        raise AppError(Reason.TOKEN_INVALID, "the token is not valid") from None


def _moment(claim: Any) -> float:
    """Seconds since 1970. Raises TypeError or ValueError; NaN would never lie in the past."""
    try:
        moment = float(claim)
    except OverflowError:
        moment = math.inf
    if not math.isfinite(moment):
        raise ValueError("a token ends at some time")
    return moment


class AssertionSigner:
    """Signs who we are for one call to another service."""

    def __init__(self, service: str, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._service = service
        self._key = key
        self._clock = clock
        self._cache: BoundedCache[tuple[str, str, str], tuple[str, int]] = BoundedCache(
            max_items=1_000, ttl_s=_ASSERTION_REUSE_S, clock=clock
        )

    def sign(self, audience: str, subject: Identity | None = None) -> str:
        """An assertion for `audience`; `subject` is named only where it has no token."""
        who = (subject.tenant_id, subject.user_id) if subject else ("", "")
        now = int(self._clock.now().timestamp())
        assertion, made_at = self._cache.get((audience, *who)) or ("", 0)
        # By the wall clock as well: what a wrong clock dated is void once it is put right.
        if not 0 <= now - made_at < _ASSERTION_REUSE_S:
            assertion = self._make(audience, subject, now)
            self._cache.put((audience, *who), (assertion, now))
        return assertion

    def _make(self, audience: str, subject: Identity | None, now: int) -> str:
        claims: dict[str, Any] = {
            "iss": self._service,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_TTL_S,
        }
        if subject is not None:
            claims |= {"tid": subject.tenant_id, "sub": subject.user_id}
        return jwt.encode(claims, self._key, algorithm="EdDSA")


class AssertionVerifier:
    """Checks the assertions that other services send to this one."""

    def __init__(self, service: str, keys: Mapping[str, Ed25519PublicKey], clock: Clock) -> None:
        self._service = service
        self._keys = keys
        self._clock = clock
        self._cache: BoundedCache[bytes, tuple[Identity, float]] = BoundedCache(
            max_items=_CACHED_TOKENS, clock=clock
        )

    def verify(self, assertion: str) -> Identity:
        """Caller and subject; the subject's ids are empty if it names none.

        Raises AppError CALLER_INVALID.
        """
        digest = hashlib.sha256(assertion.encode()).digest()
        found = self._cache.get(digest)
        if found is None:
            found = self._check(assertion)
            self._cache.put(digest, found)
        identity, expires_at = found
        left_s = expires_at - self._clock.now().timestamp()
        if left_s + _LEEWAY_S <= 0:
            raise AppError(Reason.CALLER_INVALID, "the service assertion has expired")
        if left_s > ASSERTION_TTL_S + _LEEWAY_S:
            raise AppError(Reason.CALLER_INVALID, "the service assertion lasts too long")
        return identity

    def _check(self, assertion: str) -> tuple[Identity, float]:
        try:
            unverified = jwt.decode(assertion, options={"verify_signature": False})
            key = self._keys[str(unverified["iss"])]
        except (jwt.PyJWTError, KeyError):
            raise AppError(Reason.CALLER_INVALID, "unknown service") from None
        claims = _decode(assertion, key, self._service, Reason.CALLER_INVALID, verify_exp=False)
        identity = Identity(
            tenant_id=str(claims.get("tid", "")),
            user_id=str(claims.get("sub", "")),
            caller=str(claims["iss"]),
        )
        try:
            return identity, _moment(claims["exp"])
        except (TypeError, ValueError):
            raise AppError(Reason.CALLER_INVALID, "the service assertion is not valid") from None


def _decode(
    token: str, key: Ed25519PublicKey, audience: str, reason: Reason, *, verify_exp: bool
) -> dict[str, Any]:
    """Verify signature, audience and form. Expiry is checked at each use, by our own clock."""
    try:
        return jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            audience=audience,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss"], "verify_exp": verify_exp, "verify_iat": False},
        )
    except jwt.PyJWTError:
        raise AppError(reason, "the token is not valid") from None
