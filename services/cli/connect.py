"""From options to a client: the mesh of a data folder, or one elsewhere by its address.

The key of a mesh elsewhere comes from the environment and not from an option, which everybody on
the machine could read in the list of processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from echomesh import Client
from services.cli.files import DEFAULT_DATA, CommandError, read_credentials, read_mesh
from services.runtime.tls import is_loopback

KEY_VARIABLE = "ECHOMESH_API_KEY"

Data = Annotated[Path, typer.Option("--data", help="The data folder of the mesh.")]
Address = Annotated[
    str,
    typer.Option(
        "--address", help=f"host:port of a mesh elsewhere; its key is read from {KEY_VARIABLE}."
    ),
]
Authority = Annotated[
    Path | None, typer.Option("--ca", help="PEM file of the authority that signed its certificate.")
]
User = Annotated[str, typer.Option("--user", help="An end user of the application, by its name.")]


@dataclass(frozen=True)
class Place:
    """Where a mesh is: `address` if it is set, else the mesh of the folder `data`."""

    data: Path = DEFAULT_DATA
    address: str = ""
    authority: Path | None = None

    def client(self) -> Client:
        """A client with the place's key; raises CommandError with one line."""
        if not self.address:
            folder = self.data.expanduser()
            mesh, credentials = read_mesh(folder), read_credentials(folder)
            return Client(mesh.address, api_key=credentials.api_key)
        key = os.environ.get(KEY_VARIABLE, "")
        if not key:
            raise CommandError(f"set {KEY_VARIABLE} to an API key of the mesh at {self.address}")
        # A loopback address is a mesh of this machine or ports forwarded to it: either way every
        # service is at that host.
        forwarded = is_loopback(self.address)
        return Client(
            self.address, api_key=key, root_certificates=self.roots(), forwarded=forwarded
        )

    def roots(self) -> bytes | None:
        """The authority's certificate; None: those that the machine trusts. Raises CommandError."""
        try:
            return self.authority.read_bytes() if self.authority else None
        except OSError as error:
            raise CommandError(f"{self.authority}: {error.strerror}") from None
