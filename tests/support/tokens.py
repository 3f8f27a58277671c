"""Access tokens and key sets as auth makes them, without an auth service."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.runtime.tokens import AUDIENCE, ISSUER


def jwks(**keys: Ed25519PrivateKey) -> str:
    """A key set by key id."""
    return json.dumps({"keys": [_jwk(kid, key) for kid, key in keys.items()]})


def _jwk(kid: str, key: Ed25519PrivateKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x}


def token_for(
    key: Ed25519PrivateKey,
    user: str,
    expires: datetime,
    *,
    kid: str = "k1",
    tenant: str = "tenant-1",
    roles: Sequence[str] = ("user",),
) -> str:
    """A token of `user` that is good until `expires`."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user,
        "tid": tenant,
        "roles": list(roles),
        "iat": int((expires - timedelta(minutes=10)).timestamp()),
        "exp": expires.timestamp(),
    }
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid})
