"""The key that wraps signing keys: a file outside the database, mode 0600."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from services.auth.keys import WRAPPING_KEY_BYTES
from services.runtime.errors import AppError, Reason


def read_wrapping_key(path: Path) -> bytes:
    """Return the key's 32 bytes; raises AppError with one line for the operator."""
    try:
        key = base64.b64decode(path.read_text("ascii").strip(), validate=True)
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror}); bootstrap makes it") from error
    except ValueError as error:
        raise _unusable(path, "is not base64") from error
    if len(key) != WRAPPING_KEY_BYTES:
        raise _unusable(path, f"must hold {WRAPPING_KEY_BYTES} bytes")
    return key


def ensure_wrapping_key(path: Path) -> bytes:
    """Make the file if it is missing, whole or not at all, and return the key."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = base64.b64encode(secrets.token_bytes(WRAPPING_KEY_BYTES)) + b"\n"
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        write_private(draft, text)
        # Unlike a rename, a link never replaces the key of a faster process.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return read_wrapping_key(path)


def derive_key(wrapping_key: bytes, purpose: str) -> bytes:
    """Return a key for one other purpose."""
    return hmac.new(wrapping_key, purpose.encode(), hashlib.sha256).digest()


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, and see it on disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _unusable(path: Path, why: str) -> AppError:
    return AppError(Reason.INTERNAL, f"the wrapping key {path} {why}")
