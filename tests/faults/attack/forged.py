"""Tokens that nobody may get in with: forged without auth's key, or signed with it and void."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.auth.keys import unwrap
from services.auth.postgres_rows import to_signing_key
from services.auth.wrapping import read_wrapping_key
from services.runtime.trust import load_private
from tests.support.mesh import RunningMesh

HOUR_S = 3600
Claims = Mapping[str, Any]


@dataclass(frozen=True)
class Forger:
    """Knows auth's own signing key, taken from its database, and the claims of a good token."""

    kid: str
    key: Ed25519PrivateKey
    claims: Claims

    def signed(self, claims: Claims, **header: Any) -> str:
        """A token signed by auth's own key."""
        headers = {"kid": self.kid, **header}
        return jwt.encode(dict(claims), self.key, algorithm="EdDSA", headers=headers)

    def without_auths_key(self) -> Iterator[tuple[str, str]]:
        """Tokens that anyone can make who knows the public key set, each with its name."""
        yield from self._unsigned()
        yield from self._hmac_signed()
        yield from self._signed_by_another()

    def void(self) -> Iterator[tuple[str, str]]:
        """Tokens with auth's true signature, made for something else or for some other time."""
        for name, change in _VOID.items():
            claims = {**self.claims, **change(int(time.time()))}
            kept = {key: value for key, value in claims.items() if value is not _GONE}
            yield name, self.signed(kept)

    def _unsigned(self) -> Iterator[tuple[str, str]]:
        body = _part(self.claims)
        signature = self.signed(self.claims).rpartition(".")[2]
        for alg in ("none", "None", "NONE", "nOnE", "", None):
            head = _part({"alg": alg, "kid": self.kid, "typ": "JWT"})
            yield f"alg {alg!r}", f"{head}.{body}."
            yield f"alg {alg!r} with a signature", f"{head}.{body}.{signature}"
        yield "no signature", self.signed(self.claims).rpartition(".")[0] + "."
        yield "another body", self._with_body({**self.claims, "roles": ["operator", "admin"]})
        yield "another tenant", self._with_body({**self.claims, "tid": "another"})

    def _with_body(self, claims: Claims) -> str:
        head, _, signature = self.signed(self.claims).split(".")
        return f"{head}.{_part(claims)}.{signature}"

    def _hmac_signed(self) -> Iterator[tuple[str, str]]:
        """The public key taken for a shared secret, in each form in which it goes about."""
        public = self.key.public_key()
        raw = public.public_bytes_raw()
        secrets = {
            "raw": raw,
            "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "x": base64.urlsafe_b64encode(raw).rstrip(b"="),
            "kid": self.kid.encode(),
            "empty": b"",
        }
        hashes = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}
        for alg, digest in hashes.items():
            signing_input = f"{_part({'alg': alg, 'kid': self.kid})}.{_part(self.claims)}"
            for form, secret in secrets.items():
                mac = hmac.new(secret, signing_input.encode(), digest).digest()
                yield f"{alg} with the public key, {form}", f"{signing_input}.{_b64(mac)}"

    def _signed_by_another(self) -> Iterator[tuple[str, str]]:
        """Signed by the attacker's key, with a header that asks to believe it."""
        theirs = Ed25519PrivateKey.generate()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _b64(theirs.public_key().public_bytes_raw())}
        for name, header in {
            "the true kid": {"kid": self.kid},
            "no kid": {},
            "an unknown kid": {"kid": "0123456789abcdef"},
            "a kid that is a path": {"kid": "../../../../dev/null"},
            "a kid that is SQL": {"kid": "x' union select 'k' --"},
            "a kid that is a number": {"kid": 7},
            "a kid that is a list": {"kid": [self.kid]},
            "a kid that is an object": {"kid": {"$ne": ""}},
            "a kid with NUL": {"kid": f"{self.kid}\0"},
            "a long kid": {"kid": "k" * 3_000},
            "its own key": {"kid": self.kid, "jwk": jwk},
            "an address of keys": {"kid": "x", "jku": "http://127.0.0.1:9/keys.json"},
            "a certificate's address": {"kid": "x", "x5u": "http://127.0.0.1:9/cert.pem"},
            "deep nonsense": {"kid": self.kid, "crit": ["b64"], "b64": False},
        }.items():
            head = _part({"alg": "EdDSA", **header})
            signing_input = f"{head}.{_part(self.claims)}"
            signature = theirs.sign(signing_input.encode())
            yield f"another key and {name}", f"{signing_input}.{_b64(signature)}"
        nested = _b64(b'{"alg":"EdDSA","a":' + b"[" * 2_000 + b"]" * 2_000 + b"}")
        yield "a header nested 2,000 deep", f"{nested}.{_part(self.claims)}.{_b64(bytes(64))}"


_GONE = object()
_VOID: dict[str, Any] = {
    "expired an hour ago": lambda now: {"iat": now - 2 * HOUR_S, "exp": now - HOUR_S},
    "expired in 1970": lambda _: {"exp": 0},
    "not yet valid": lambda now: {"nbf": now + HOUR_S, "exp": now + 2 * HOUR_S},
    "without an end": lambda _: {"exp": _GONE},
    "an end that is a word": lambda _: {"exp": "never"},
    "an end that is no number": lambda _: {"exp": float("nan")},
    "an end that never comes": lambda _: {"exp": float("inf")},
    "an end beyond all numbers": lambda _: {"exp": 10**400},
    "another audience": lambda _: {"aud": "memory"},
    "an audience that begins alike": lambda _: {"aud": "echomesh2"},
    "without an audience": lambda _: {"aud": _GONE},
    "another issuer": lambda _: {"iss": "https://attacker.example"},
    "without an issuer": lambda _: {"iss": _GONE},
    "an issuer that is a service": lambda _: {"iss": "routing"},
    "without a tenant": lambda _: {"tid": _GONE},
    "an empty tenant": lambda _: {"tid": ""},
    "a tenant that is a list": lambda _: {"tid": ["a"]},
    "without a user": lambda _: {"sub": _GONE},
    "an empty user": lambda _: {"sub": ""},
    "roles that are a number": lambda _: {"roles": 7},
}


def forged_assertions(mesh: RunningMesh, audience: str) -> Iterator[tuple[str, str]]:
    """What may not pass for a service of the mesh that calls `audience`."""
    folder, now = mesh.data / "trust", int(time.time())
    good = {"iss": "routing", "aud": audience, "iat": now, "exp": now + 60}
    routing, models = load_private(folder, "routing"), load_private(folder, "models")
    yield "unsigned", f"{_part({'alg': 'none'})}.{_part(good)}."
    for name, claims, key in (
        ("another service's key", good, models),
        ("a stranger's key", good, Ed25519PrivateKey.generate()),
        ("for another service", {**good, "aud": "nobody"}, routing),
        ("expired", {**good, "exp": now - HOUR_S}, routing),
        ("for an hour", {**good, "exp": now + HOUR_S}, routing),
        ("an end that is no number", {**good, "exp": float("nan")}, routing),
        ("an end that never comes", {**good, "exp": float("inf")}, routing),
        ("an end beyond all numbers", {**good, "exp": 10**400}, routing),
        ("an unknown service", {**good, "iss": "attacker"}, routing),
        ("no service", {"aud": audience, "exp": now + 60}, routing),
    ):
        yield name, jwt.encode(claims, key, algorithm="EdDSA")
    yield "junk", "junk"
    yield "nothing", ""


async def make_forger(mesh: RunningMesh, good_token: str) -> Forger:
    """Read the key with which auth signs now, as an intruder in its database and disk would."""
    environment = mesh.service("auth").environ()
    connection = await asyncpg.connect(environment["ECHOMESH_AUTH_DATABASE_URL"])
    kid = jwt.get_unverified_header(good_token)["kid"]
    try:
        row = await connection.fetchrow("select * from auth.signing_keys where id = $1", kid)
    finally:
        await connection.close()
    wrapping = read_wrapping_key(mesh.data / "auth" / "wrapping.key")
    key = await asyncio.to_thread(unwrap, wrapping, to_signing_key(row))
    claims = jwt.decode(good_token, options={"verify_signature": False})
    return Forger(kid, key, claims)


def _part(content: Any) -> str:
    return _b64(json.dumps(content).encode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
