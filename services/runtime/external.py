"""A PostgreSQL server of the user's own in place of the embedded one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from services.runtime import roles
from services.runtime.pgbinaries import PostgresUnavailable
from services.runtime.private_files import kept_passwords
from services.runtime.process import private_folder

_CONNECT_S = 10.0


class ExternalPostgres:
    """The face of `EmbeddedPostgres` over a server that somebody else runs."""

    def __init__(self, admin_dsn: str, folder: Path, named: str = "ECHOMESH_POSTGRES_URL") -> None:
        """Name the server.

        Args:
            admin_dsn: address of a role that may create databases and roles.
            folder: private folder that keeps the roles' passwords.
            named: what the user knows the address by.

        """
        self._admin_dsn = _with_database(admin_dsn)
        self._folder = folder
        self._named = named

    async def start(self) -> None:
        """Check that the server answers.

        Raises:
            PostgresUnavailable: it does not; one line says why.

        """
        private_folder(self._folder)
        try:
            connection = await asyncpg.connect(self._admin_dsn, timeout=_CONNECT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise self._unavailable(error) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self._unavailable(error) from None
        await connection.close(timeout=_CONNECT_S)

    async def provision(
        self, services: Iterable[str], database: str = roles.MESH_DATABASE
    ) -> Mapping[str, roles.RoleDsns]:
        """Create database, schemas and roles, and return each service's addresses."""
        names = list(services)
        passwords = kept_passwords(self._folder, roles.new_passwords(names))
        await roles.provision(self._admin_dsn, names, passwords, database)
        return {name: roles.role_dsns(self._admin_dsn, name, passwords, database) for name in names}

    async def wait(self) -> int:
        """Wait for ever: the server is not ours to watch."""
        await asyncio.Event().wait()
        return 0

    async def answers(self, timeout_s: float) -> bool:
        """Say yes: a server that is away comes back without our help."""
        return timeout_s > 0

    def has_room(self) -> bool:
        """Say yes: its disk is not ours to watch."""
        return True

    async def kill(self) -> None:
        """Leave the server alone."""

    async def stop(self) -> None:
        """Leave the server alone."""

    def _unavailable(self, error: Exception) -> PostgresUnavailable:
        host = urlsplit(self._admin_dsn).hostname or "the address given"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return PostgresUnavailable(f"{self._named}: {host} cannot be used: {reason}")


def _with_database(dsn: str) -> str:
    """The address with a database that is always there, where it names none.

    CloudNativePG's Secrets say "*": any.
    """
    parts = urlsplit(dsn)
    named = parts.path not in {"", "/", "/*"} or re.search(r"\b(dbname|database)=", parts.query)
    if named or not parts.netloc:
        return dsn
    return urlunsplit((parts.scheme, parts.netloc, "/postgres", parts.query, ""))
