"""The form of API keys and refresh tokens, and the hashes under which they are stored."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import uuid
from collections.abc import Mapping

# Both secrets have 256 random bits, so a fast hash is as good as a slow one.
_API_KEY = re.compile(r"em_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_REFRESH_TOKEN = re.compile(r"er_([A-Za-z0-9-]{1,64})_([A-Za-z0-9_-]{43})")


class SystemRandomness:
    """Ids and secrets from the operating system."""

    def new_id(self) -> str:
        """Return a random UUID as text."""
        return str(uuid.uuid4())

    def key_id(self) -> str:
        """Return 16 random hex digits."""
        return secrets.token_hex(8)

    def secret(self) -> str:
        """Return 256 random bits as 43 URL-safe characters."""
        return secrets.token_urlsafe(32)


def api_key_text(key_id: str, secret: str) -> str:
    """Return the key as its owner keeps it: `em_<id>_<secret>`."""
    return f"em_{key_id}_{secret}"


def parse_api_key(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of a key, or None if it is none."""
    match = _API_KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def refresh_token_text(tenant_id: str, secret: str) -> str:
    """Return a refresh token: `er_<tenant>_<secret>`; the tenant says where to look."""
    return f"er_{tenant_id}_{secret}"


def refresh_token_tenant(text: str) -> str | None:
    """Return the tenant that a refresh token names, or None if it is none."""
    match = _REFRESH_TOKEN.fullmatch(text)
    return match[1] if match else None


def digest(text: str) -> bytes:
    """Return the sha256 under which a secret is stored."""
    return hashlib.sha256(text.encode()).digest()


def same(left: bytes, right: bytes) -> bool:
    """Compare two hashes in constant time."""
    return hmac.compare_digest(left, right)


def fingerprint(key: bytes, method: str, body: Mapping[str, object]) -> bytes:
    """Return a keyed hash of a write: two bodies with one request_id are told apart by it.

    Keyed, because a body may hold a password, which a plain hash would let anyone guess.
    """
    text = json.dumps([method, body], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
