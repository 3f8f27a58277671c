"""One PostgreSQL server of our own in a data folder, on a private unix socket.

It survives kill -9 (fsync stays on), ends with this process however that ends, and never runs as
root. Passwords are SCRAM and lie in a 0600 file beside the data.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from services.runtime import roles
from services.runtime.pgbinaries import (
    Binaries,
    PostgresUnavailable,
    Runner,
    find_binaries,
    plan_runner,
    reachable_home,
)
from services.runtime.private_files import kept_passwords, write_private
from services.runtime.process import (
    Child,
    is_alive,
    private_folder,
    short_folder,
    socket_folder,
    spawn_guarded,
    wait_until_gone,
)

SUPERUSER = "postgres"
SOCKET_PORT = 5432
"""Only names the socket file; no TCP port is opened unless asked for."""

START_LIMIT_S = 60
"""Crash recovery of a large log can take this long on a slow disk."""

STOP_GRACE_S = 15
"""A fast shutdown writes one checkpoint; then the rest is killed."""

ROOM_BYTES = 32 * 2**20
"""Recovery ends with a new log segment of 16 MB, and the first writes may need another."""

_POLL_S = 0.05
_INITDB_LIMIT_S = 120
_LEFTOVER_GRACE_S = 10

_SETTINGS = {
    "max_connections": "80",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "unix_socket_permissions": "0700",
    "jit": "off",  # compiling costs more than our short statements
    "log_min_messages": "warning",
    "timezone": "UTC",
    "max_parallel_workers_per_gather": "0",  # two cores are shared with the services
    "autovacuum_max_workers": "1",
    "autovacuum_naptime": "5s",  # a first import outgrows what the planner knows within seconds
}


class EmbeddedPostgres:
    """A PostgreSQL server under `folder`; `start` makes it on first use."""

    def __init__(
        self,
        folder: Path,
        *,
        tcp_port: int | None = None,
        log_file: Path | None = None,
        runner: Runner | None = None,
    ) -> None:
        """Plan the server; nothing is started or written yet.

        Args:
            folder: private folder that holds data and passwords.
            tcp_port: loopback port to listen on as well.
            log_file: where the server's log goes; `<folder>/server.log` when left out.
            runner: how to start the programs; found out when left out.

        """
        self._folder = folder
        self._tcp_port = tcp_port
        self._log_file = log_file or folder / "server.log"
        self._given_runner = runner
        self._child: Child | None = None
        self._socket_folder: Path | None = None
        self._data: Path | None = None
        self._passwords: dict[str, str] = {}

    @property
    def admin_dsn(self) -> str:
        """Address of the superuser's own database; valid once started."""
        return self.dsn(SUPERUSER, "postgres")

    def dsn(self, user: str, database: str = roles.MESH_DATABASE) -> str:
        """Return the address with which `user` reaches `database`."""
        password = quote(self._passwords[user], safe="")
        return (
            f"postgresql://{user}:{password}@/{database}"
            f"?host={quote(str(self._socket_folder), safe='/')}&port={SOCKET_PORT}"
        )

    def tcp_dsn(self, user: str, database: str = roles.MESH_DATABASE) -> str:
        """Return the address over loopback TCP; only with a `tcp_port`."""
        password = quote(self._passwords[user], safe="")
        return f"postgresql://{user}:{password}@127.0.0.1:{self._tcp_port}/{database}"

    @property
    def postmaster_pid(self) -> int:
        """Process id of the server itself."""
        return _read_pid(self._data_folder())

    async def start(self) -> None:
        """Make the database cluster if there is none, start it and wait until it answers.

        Raises:
            PostgresUnavailable: it cannot be run here, or does not start; one line says why.

        """
        private_folder(self._folder)
        runner = self._given_runner or plan_runner(find_binaries(self._existing_major()))
        self._data = reachable_home(runner, self._folder) / "data"
        if runner.uid is None:
            self._socket_folder = socket_folder(self._folder)
        else:
            self._socket_folder = short_folder(self._folder, runner.uid)
        self._passwords = kept_passwords(self._folder, {SUPERUSER: secrets.token_urlsafe(24)})
        if not (self._data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, runner)
        await self._end_leftover()
        await self._launch(runner)

    async def stop(self) -> None:
        """Shut the server down in order; nothing committed is lost either way."""
        if self._child is not None:
            await self._child.stop(grace_s=STOP_GRACE_S + 5)

    async def wait(self) -> int:
        """Wait until the running server ends, for whatever reason."""
        if self._child is None:
            raise RuntimeError("the server was not started")
        return await self._child.wait()

    async def kill(self) -> None:
        """Kill a server that no longer answers, with everything it started."""
        if self._child is not None:
            pid = _read_pid(self._data_folder())
            if pid and self._child.returncode is None:
                _send(pid, signal.SIGKILL)
            await self._child.stop(grace_s=2)

    def has_room(self) -> bool:
        """Whether its disk has space for a server to start; yes if its folder is gone."""
        try:
            return shutil.disk_usage(self._data_folder()).free >= ROOM_BYTES
        except OSError:
            return True  # no space brings it back: the start itself says what is wrong

    async def answers(self, timeout_s: float) -> bool:
        """Whether the server takes a new connection and answers on it in time."""
        try:
            async with asyncio.timeout(timeout_s):
                connection = await asyncpg.connect(self.admin_dsn, timeout=timeout_s)
                try:
                    await connection.fetchval("select 1")
                finally:
                    connection.terminate()
        except asyncpg.TooManyConnectionsError:
            return True  # busy is not frozen
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    async def provision(
        self, services: Iterable[str], database: str = roles.MESH_DATABASE
    ) -> Mapping[str, roles.RoleDsns]:
        """Create database, schemas and roles, and return each service's addresses."""
        names = list(services)
        self._passwords = kept_passwords(self._folder, roles.new_passwords(names))
        await roles.provision(self.admin_dsn, names, self._passwords, database)
        return {
            name: roles.role_dsns(self.admin_dsn, name, self._passwords, database) for name in names
        }

    def _data_folder(self) -> Path:
        if self._data is None:
            raise RuntimeError("the server was not started")
        return self._data

    def _existing_major(self) -> int | None:
        version = self._folder / "data" / "PG_VERSION"
        return int(version.read_text().strip()) if version.exists() else None

    def _initialise(self, runner: Runner) -> None:
        data = self._data_folder()
        if runner.uid is not None:
            data.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        staging = data.with_name("data.new")  # an initdb that is cut short leaves nothing else
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        password_file = data.parent / ".initdb-password"
        write_private(password_file, self._passwords[SUPERUSER])
        try:
            if runner.uid is not None:
                os.chown(staging, runner.uid, -1)
                os.chown(password_file, runner.uid, -1)
            arguments = _initdb_arguments(runner.binaries, staging, password_file)
            _run(runner.argv("initdb", *arguments))
        finally:
            password_file.unlink()
        staging.rename(data)

    async def _end_leftover(self) -> None:
        """End a server that an earlier, killed guard of this very folder left behind."""
        pid = _read_pid(self._data_folder())
        if not pid or not is_alive(pid) or not _is_postgres(pid):
            return
        _send(pid, signal.SIGCONT)
        _send(pid, signal.SIGINT)
        if not await wait_until_gone(pid, timeout_s=_LEFTOVER_GRACE_S):
            _send(pid, signal.SIGKILL)
            await wait_until_gone(pid, timeout_s=_LEFTOVER_GRACE_S)

    async def _launch(self, runner: Runner) -> None:
        """Start the server; after a crash its old backends may hold the folder for a moment."""
        async with asyncio.timeout(START_LIMIT_S):
            while True:
                size = self._log_file.stat().st_size if self._log_file.exists() else 0
                self._child = self._spawn(runner)
                if await self._wait_until_ready(self._child):
                    return
                said = self._log_file.read_bytes()[size:].decode(errors="replace")
                if "still in use" not in said and "lock file" not in said:
                    raise PostgresUnavailable(f"PostgreSQL did not start: {_last_line(said)}")
                await asyncio.sleep(_POLL_S * 5)

    def _spawn(self, runner: Runner) -> Child:
        listen = "127.0.0.1" if self._tcp_port else ""
        port = self._tcp_port or SOCKET_PORT
        options = {**_SETTINGS, "listen_addresses": listen, "port": str(port)}
        options["unix_socket_directories"] = str(self._socket_folder)
        arguments = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with self._log_file.open("ab") as log:
            return spawn_guarded(
                runner.argv("postgres", "-D", str(self._data_folder()), *arguments),
                stop_signal=signal.SIGINT,
                grace_s=STOP_GRACE_S,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                cwd=Path("/"),
                output=log,
            )

    async def _wait_until_ready(self, child: Child) -> bool:
        while child.returncode is None:
            if await self.answers(timeout_s=5):
                return True
            await asyncio.sleep(_POLL_S)
        return False


def _initdb_arguments(binaries: Binaries, data: Path, password_file: Path) -> list[str]:
    arguments = ["-D", str(data), "-U", SUPERUSER, "-E", "UTF8", "--locale=C"]
    if binaries.major >= 17:  # the first with a locale that is the same on every platform
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    auth = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--no-instructions"]
    return [*arguments, *auth]


def _run(argv: list[str]) -> None:
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd="/", timeout=_INITDB_LIMIT_S, check=False
    )
    if done.returncode != 0:
        raise PostgresUnavailable(f"PostgreSQL's initdb failed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    """Return what went wrong in PostgreSQL's own words, without time and process."""
    if "No space left on device" in text:
        return "the disk is full"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "FATAL" in line or "error:" in line]
    last = (told or lines or ["it said nothing"])[-1]
    return last.rpartition("FATAL:")[2].strip()


def _read_pid(data: Path) -> int:
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _is_postgres(pid: int) -> bool:
    """Whether the process runs a program named postgres (ids are used again after a reboot)."""
    said = subprocess.run(
        ["ps", "-o", "comm=", "-p", str(pid)],  # noqa: S607 - part of every supported system
        capture_output=True,
        text=True,
        check=False,
    )
    return Path(said.stdout.strip()).name == "postgres"


def _send(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # gone, which is what the signal was for
