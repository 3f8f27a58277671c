"""Debian's PgBouncer in transaction mode in front of a test's database, as in production.

Requests and jobs reach Postgres by way of it; the owner's address stays direct, and the pooler
does not even know the owner, so that whatever migrates or listens through it fails.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from services.runtime.pgbinaries import Runner, find_binaries, plan_runner
from services.runtime.roles import RoleDsns
from tests.support.postgres import TestDatabase

_START_S = 10.0
_STOP_S = 10.0


def find_pgbouncer() -> str | None:
    """Return the program's path; Debian puts it where ordinary users do not look."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


@dataclass
class Pooler:
    """A PgBouncer and the addresses that lead through it.

    `direct` are the database's own addresses; in `database` those of app and jobs are pooled.
    """

    direct: TestDatabase
    program: str
    folder: Path
    runner: Runner
    pool_size: int
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def database(self) -> TestDatabase:
        """The database as services see it."""
        pooled = {
            name: RoleDsns(dsns.owner, self._through(dsns.app), self._through(dsns.jobs))
            for name, dsns in self.direct.services.items()
        }
        return TestDatabase(self.direct.name, self.direct.admin_dsn, pooled)

    async def start(self) -> None:
        """Start it and wait until it answers; it keeps its port when started again."""
        self.port = self.port or _free_port()
        config = self._write("pgbouncer.ini", self._config())
        self._write("users.txt", self._users())
        with (self.folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.runner.prefix, self.program, str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd="/",
            )
        async with asyncio.timeout(_START_S):
            while not await self._answers():
                if self._process.poll() is not None:
                    raise AssertionError(f"pgbouncer ended:\n{self.log()}")
                await asyncio.sleep(0.05)

    def stop(self) -> None:
        """End it at once, as a crash would; every client's connection breaks."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_S)
            self._process = None

    def log(self) -> str:
        """What it said."""
        return (self.folder / "pgbouncer.log").read_text(errors="replace")

    def _through(self, dsn: str) -> str:
        parts = urlsplit(dsn)
        login = parts.netloc.rpartition("@")[0]
        return f"postgresql://{login}@127.0.0.1:{self.port}{parts.path}"

    async def _answers(self) -> bool:
        dsns = next(iter(self.database.services.values()))
        try:
            connection = await asyncpg.connect(dsns.app, statement_cache_size=0, timeout=1)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    def _config(self) -> str:
        place = parse_qs(urlsplit(self.direct.admin_dsn).query)
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self.folder / "users.txt",
            "pool_mode": "transaction",
            "default_pool_size": self.pool_size,
            "max_client_conn": 200,
        }
        lines = [f"{key} = {value}" for key, value in settings.items()]
        target = f"* = host={place['host'][0]} port={place['port'][0]}"
        return "\n".join(["[databases]", target, "[pgbouncer]", *lines, ""])

    def _users(self) -> str:
        dsns = [d for roles in self.direct.services.values() for d in (roles.app, roles.jobs)]
        logins = [urlsplit(dsn) for dsn in dsns]
        return "".join(f'"{p.username}" "{unquote(p.password or "")}"\n' for p in logins)

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        if self.runner.uid is not None:
            os.chown(path, self.runner.uid, -1)
        return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running_pooler(
    program: str, database: TestDatabase, pool_size: int = 1
) -> AsyncIterator[Pooler]:
    """Run PgBouncer with `pool_size` server connections for each role until the block ends."""
    # Like Postgres it refuses to be root, and it must reach the same private socket.
    runner = plan_runner(find_binaries())
    with tempfile.TemporaryDirectory(prefix="echomesh-pgbouncer-") as name:
        folder = Path(name)
        if runner.uid is not None:
            os.chown(folder, runner.uid, -1)
        pooler = Pooler(database, program, folder, runner, pool_size)
        try:
            await pooler.start()
            yield pooler
        finally:
            pooler.stop()
