"""Small files that only their owner may read, and the passwords kept in one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from services.runtime.pgbinaries import PostgresUnavailable


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def kept_passwords(folder: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the folder's passwords, after adding those of `wanted` that it has none for.

    Raises:
        PostgresUnavailable: the file is broken; one line says so.

    """
    path = folder / "passwords.json"
    try:
        kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise PostgresUnavailable(f"{path} is broken: restore it from a backup") from None
    if not wanted.keys() <= kept.keys():
        kept = {**wanted, **kept}
        write_private(path, json.dumps(kept, indent=1))
    return kept
