"""The services' own keys: one private file each, and one file of all public keys."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

PUBLIC_FILE = "trust.json"


def create_trust(folder: Path, services: Iterable[str]) -> None:
    """Make what is missing: a key for each service (mode 0600) and the public file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    public: dict[str, str] = {}
    for service in services:
        path = folder / f"{service}.key"
        if not path.exists():
            _write_private(path, Ed25519PrivateKey.generate())
        raw = load_private(folder, service).public_key().public_bytes_raw()
        public[service] = base64.b64encode(raw).decode()
    (folder / PUBLIC_FILE).write_text(json.dumps(public, indent=2))


def load_private(folder: Path, service: str) -> Ed25519PrivateKey:
    """A service's own key. Raises OSError or ValueError."""
    key = serialization.load_pem_private_key((folder / f"{service}.key").read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{service}.key is no Ed25519 key")
    return key


def load_public(folder: Path) -> Mapping[str, Ed25519PublicKey]:
    """The public key of each service, by its name. Raises OSError or ValueError."""
    names: dict[str, str] = json.loads((folder / PUBLIC_FILE).read_text())
    return {
        name: Ed25519PublicKey.from_public_bytes(base64.b64decode(raw))
        for name, raw in names.items()
    }


def _write_private(path: Path, key: Ed25519PrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
