"""The keyring of one replica: fresh enough to sign, and public keys even while Postgres is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.auth.actions import Action
from services.auth.auditing import By
from services.auth.events import alert
from services.auth.keys import (
    RotationPolicy,
    jwks_at,
    new_signing_key,
    rotation_times,
    signing_key_at,
    unwrap,
)
from services.auth.model import Randomness, SigningKey, User
from services.auth.store import Store
from services.runtime.audit import AuditEvent
from services.runtime.authenticate import FORWARDED_PAST_EXPIRY_S
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason, unavailable
from services.runtime.tokens import AUDIENCE, ISSUER

# Well below the time from publishing to signing, so that no replica misses a rotation.
_FRESH_S = 10.0
# After losing a race, the other replica's key is there to be read.
_ROTATE_ATTEMPTS = 3


class Keyring:
    """Signs access tokens and rotates the keys that do."""

    def __init__(
        self,
        store: Store,
        wrapping_key: bytes,
        policy: RotationPolicy,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._store = store
        self._wrapping_key = wrapping_key
        self._policy = policy
        self._clock = clock
        self._randomness = randomness
        self._keys: Sequence[SigningKey] = ()
        self._private: dict[str, Ed25519PrivateKey] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def sign(self, user: User) -> tuple[str, datetime]:
        """Return an access token for the user and when it expires."""
        keys = await self._fresh_keys()
        now = self._clock.now()
        key = signing_key_at(keys, now)
        if key is None:
            raise unavailable("signing key")
        # Whole seconds, as in the token itself.
        expires_at = (now + self._policy.token_life).replace(microsecond=0)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "tid": user.tenant_id,
            "sub": user.id,
            "roles": sorted(user.roles),
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "jti": self._randomness.new_id(),
        }
        token = jwt.encode(
            claims, self._private_key(key), algorithm="EdDSA", headers={"kid": key.id}
        )
        return token, expires_at

    async def jwks(self) -> str:
        """Return the public keys as JSON; while Postgres is away, those known before."""
        try:
            keys = await self._fresh_keys()
        except AppError:
            if not self._keys:
                raise
            keys = self._keys
        return jwks_at(keys, self._clock.now())

    async def ensure_key(self, by: By) -> None:
        """Make the first key, which signs at once: nobody can hold an older token."""
        if await self._store.signing_keys():
            return
        now = self._clock.now()
        key = new_signing_key(self._wrapping_key, self._randomness.key_id(), now, now)
        await self._store.add_signing_key(key, None, by.tenant_id, _published(by, key))
        self._read_at = None

    async def rotate(self, by: By) -> SigningKey:
        """Publish a key. One that is published and does not sign yet is returned instead."""
        for _ in range(_ROTATE_ATTEMPTS):
            keys = await self._store.signing_keys()
            now = self._clock.now()
            waiting = next((key for key in keys if key.signs_from > now), None)
            if waiting is not None:
                return waiting
            signs_from, retires_at = rotation_times(self._policy, now)
            key = new_signing_key(self._wrapping_key, self._randomness.key_id(), now, signs_from)
            event = _published(by, key)
            if await self._store.add_signing_key(key, retires_at, by.tenant_id, event):
                self._read_at = None
                alert("signing_key_published", key_id=key.id)
                return key
        raise AppError(Reason.VERSION_CONFLICT, "another rotation runs; try again")

    async def _fresh_keys(self) -> Sequence[SigningKey]:
        async with self._reading:
            now = self._clock.monotonic()
            # None is never fresh: bootstrap, another process, may be making the first one now.
            if not self._keys or self._read_at is None or now - self._read_at >= _FRESH_S:
                self._keys = await self._store.signing_keys()
                self._read_at = now
                kept = {key.id for key in self._keys}
                self._private = {i: key for i, key in self._private.items() if i in kept}
            return self._keys

    def _private_key(self, key: SigningKey) -> Ed25519PrivateKey:
        private = self._private.get(key.id)
        if private is None:
            private = self._private[key.id] = unwrap(self._wrapping_key, key)
        return private


def _published(by: By, key: SigningKey) -> AuditEvent:
    return by.did(Action.SIGNING_KEY_PUBLISH, f"signing_key:{key.id}")


def policy_from(publish_ahead_s: int, token_life_s: int) -> RotationPolicy:
    """Return the policy of two settings in seconds.

    Services hand tokens on for a while after they expired; until then their key must be known.
    """
    return RotationPolicy(
        timedelta(seconds=publish_ahead_s),
        timedelta(seconds=token_life_s),
        timedelta(seconds=FORWARDED_PAST_EXPIRY_S),
    )
