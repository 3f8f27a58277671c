"""The two files by which commands find the mesh of a data folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from services.runtime.process import is_alive

DEFAULT_DATA = Path("~/.echomesh")


class CommandError(Exception):
    """What a command says in one line before it ends with status 1."""


class MeshFile(BaseModel):
    """`mesh.json`: where the mesh of this folder listens while it is up."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # host:port of routing's public listener, from which an SDK finds the rest.
    address: str
    # Where HTTP clients find the mesh; empty if an older release wrote the file.
    http: str = ""
    # host:port of each service's metrics listener, by service.
    metrics: dict[str, str]
    # host:port of each service's mesh listener, by service.
    services: dict[str, str]
    # Whether mesh listeners ask for a certificate, as there is one in certs/cli.
    mutual_tls: bool = False
    # The process of `echomesh up`.
    pid: int


class Credentials(BaseModel):
    """`credentials.json` (mode 0600): the first tenant, user and keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tenant_id: str
    user_id: str
    # The first user's own key: roles user, app and admin.
    api_key: str


def read_mesh(data: Path) -> MeshFile:
    """The running mesh of a data folder; raises CommandError."""
    path = data / "mesh.json"
    none = f"no mesh is up for {data}: start one with `echomesh up --data {data}`"
    try:
        mesh = MeshFile.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise CommandError(none) from None
    except (ValidationError, OSError) as error:
        raise CommandError(f"{path} cannot be read: {_first_line(error)}") from None
    if not is_alive(mesh.pid):
        # A killed `up` could not take its file away, and nobody answers at these addresses.
        raise CommandError(none)
    return mesh


def read_credentials(data: Path) -> Credentials:
    """The key made by the first `echomesh up`; raises CommandError."""
    path = data / "credentials.json"
    try:
        return Credentials.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise CommandError(f"{path} is missing: `echomesh up` makes it") from None
    except (ValidationError, OSError) as error:
        raise CommandError(f"{path} cannot be read: {_first_line(error)}") from None


def write_json(path: Path, content: dict[str, Any], mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
