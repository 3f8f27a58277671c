"""Signing keys: made, wrapped, published, used and retired without one refused token in between.

A key's life is told by its times alone: from `created_at` it stands in the JWKS, from `signs_from`
it signs until a successor does, after `retires_at` it is gone. All replicas read the same rows.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.auth.model import SigningKey

WRAPPING_KEY_BYTES = 32
_NONCE_BYTES = 12
# Clocks of replicas and validators may differ by this much.
CLOCK_MARGIN = timedelta(seconds=60)


class WrongWrappingKeyError(Exception):
    """A signing key was wrapped by another key than the one at hand."""


@dataclass(frozen=True)
class RotationPolicy:
    """`publish_ahead`: from publishing to signing; `token_life`: of the longest access token.

    `handed_on`: for how long services hand a token on to each other after it has expired.
    """

    publish_ahead: timedelta
    token_life: timedelta
    handed_on: timedelta = timedelta(0)


def new_signing_key(
    wrapping_key: bytes, key_id: str, now: datetime, signs_from: datetime
) -> SigningKey:
    """Make an Ed25519 key, wrapped with AES-256-GCM under its own id."""
    private = Ed25519PrivateKey.generate()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(wrapping_key).encrypt(nonce, private.private_bytes_raw(), key_id.encode())
    return SigningKey(
        id=key_id,
        public_key=private.public_key().public_bytes_raw(),
        wrapped_key=nonce + sealed,
        created_at=now,
        signs_from=signs_from,
    )


def unwrap(wrapping_key: bytes, key: SigningKey) -> Ed25519PrivateKey:
    """Return the private key; raises `WrongWrappingKeyError`."""
    nonce, sealed = key.wrapped_key[:_NONCE_BYTES], key.wrapped_key[_NONCE_BYTES:]
    try:
        raw = AESGCM(wrapping_key).decrypt(nonce, sealed, key.id.encode())
    except InvalidTag as error:
        raise WrongWrappingKeyError(f"signing key {key.id} was wrapped by another key") from error
    return Ed25519PrivateKey.from_private_bytes(raw)


def rotation_times(policy: RotationPolicy, now: datetime) -> tuple[datetime, datetime]:
    """Return when a key published now signs, and when the ones before it retire.

    The last token of an old key is signed at that time at the latest, give or take the clocks.
    """
    signs_from = now + policy.publish_ahead
    last_use = signs_from + policy.token_life + policy.handed_on
    return signs_from, last_use + 2 * CLOCK_MARGIN


def signing_key_at(keys: Sequence[SigningKey], now: datetime) -> SigningKey | None:
    """Return the key that signs at `now`: the youngest whose time has come."""
    ready = [key for key in keys if key.signs_from <= now and not _retired(key, now)]
    return max(ready, key=lambda key: (key.signs_from, key.id), default=None)


def jwks_at(keys: Sequence[SigningKey], now: datetime) -> str:
    """Return the JSON Web Key Set (RFC 8037) of all keys that are not retired."""
    return json.dumps({"keys": [_jwk(key) for key in keys if not _retired(key, now)]})


def _retired(key: SigningKey, now: datetime) -> bool:
    return key.retires_at is not None and key.retires_at <= now


def _jwk(key: SigningKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.id, "x": x}
