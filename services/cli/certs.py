"""`echomesh certs`: certificates for mutual TLS on one machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from services.cli.connect import Data
from services.cli.files import DEFAULT_DATA, CommandError
from services.cli.guarded_folder import held
from services.cli.plan import Layout
from services.cli.running import fail
from services.runtime.certificate_files import AUTHORITY, CERT, KEY


def certs(
    data: Data = DEFAULT_DATA,
    days: Annotated[int, typer.Option(help="How long they are good for.", min=1, max=3650)] = 90,
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address for public listeners.")
    ] = None,
) -> None:
    """Make certificates for mutual TLS on this machine, or make them anew."""
    # Imported here: every command would load what only this one needs.
    from services.cli.certs_folder import Certs

    layout = Layout(data.expanduser().resolve())
    try:
        if not layout.format.exists():
            with held(layout):
                pass  # makes the folder one of a mesh
        made = Certs(layout.certs)
        ends = made.make(datetime.now(UTC), timedelta(days=days), host or ())
    except (CommandError, OSError) as error:
        fail(str(error))
    print(f"Certificates in {layout.certs}, good until {ends:%Y-%m-%d}")
    if host:
        folder = layout.certs / "public"
        print(f"For public listeners: ECHOMESH_PUBLIC_TLS_CERT={folder / CERT}")
        print(f"                      ECHOMESH_PUBLIC_TLS_KEY={folder / KEY}")
        print(f"Clients trust         {layout.certs / AUTHORITY}")
    print("A mesh that starts now speaks mutual TLS; one that does so already takes them up.")
