"""Starting the parts of a mesh on this machine, one by one; `stack` says when."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from services.cli.files import CommandError
from services.cli.plan import WITH_DATABASE, Layout
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.external import ExternalPostgres
from services.runtime.migrate import MigrationError, migrate_service
from services.runtime.pgbinaries import PostgresUnavailable
from services.runtime.process import Child, spawn
from services.runtime.roles import RoleDsns

# How long a part may take to be of use.
START_S = 90.0
_SERVICES_FOLDER = Path(__file__).resolve().parents[1]


async def start_database(
    postgres: EmbeddedPostgres | ExternalPostgres, layout: Layout
) -> Mapping[str, RoleDsns]:
    """Start Postgres with every schema up to date; raises CommandError.

    Returns the addresses of each service's roles.
    """
    try:
        await postgres.start()
        dsns = await postgres.provision(WITH_DATABASE)
        for name in WITH_DATABASE:
            await migrate_service(name, dsns[name].owner, _SERVICES_FOLDER / name / "migrations")
    except (PostgresUnavailable, MigrationError, TimeoutError) as error:
        raise CommandError(str(error) or "PostgreSQL did not start in time") from None
    except ValueError as error:
        folder = layout.postgres
        raise CommandError(f"{folder} is broken: restore it from a backup ({error})") from None
    return dsns


async def bootstrap_auth(environment: Mapping[str, str], credentials: Path) -> None:
    """Let auth make the first tenant, user and keys; raises CommandError.

    It does so once for a folder; `credentials` is the file that it writes.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.auth",
        "bootstrap",
        "--output",
        str(credentials),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), START_S)
    except TimeoutError:
        raise CommandError("auth could not be prepared in time: see postgres.log") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CommandError(f"auth could not be prepared: {lines[-1]}")


def start_service(name: str, environment: Mapping[str, str], output: Path) -> Child:
    """Start a service's process; what it says before its log is open goes to `output`, anew."""
    with output.open("wb") as out:
        return spawn([sys.executable, "-m", f"services.{name}"], env=environment, output=out)
