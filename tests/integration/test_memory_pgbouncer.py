"""The memory store behind PgBouncer in transaction mode, as in production."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest

from services.memory.recall import MemoryFilter
from tests.support.memory_world import ALICE, BOB, begin, complete, emptied_database, memory_world
from tests.support.postgres import PostgresServer, TestDatabase

pytestmark = pytest.mark.skipif(
    shutil.which("pgbouncer") is None or shutil.which("unshare") is None,
    reason="pgbouncer is not installed; .ci/run installs Debian's",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pooled:
    """A database's addresses by way of the pooler."""

    def __init__(self, database: TestDatabase, port: int) -> None:
        self._database = database
        self._port = port

    def app(self, service: str) -> str:
        """The app role's address."""
        return self._through(self._database.app(service))

    def jobs(self, service: str) -> str:
        """The jobs role's address."""
        return self._through(self._database.jobs(service))

    def _through(self, dsn: str) -> str:
        parts = urlsplit(dsn)
        login = parts.netloc.rpartition("@")[0]
        return f"postgresql://{login}@127.0.0.1:{self._port}{parts.path}"


def write_config(folder: Path, database: TestDatabase, port: int) -> Path:
    """Two server connections for everybody, so that transactions share them."""
    parts = urlsplit(database.app("memory"))
    host = parse_qs(parts.query).get("host", [unquote(parts.hostname or "")])[0]
    logins = [urlsplit(database.app("memory")), urlsplit(database.jobs("memory"))]
    users = "".join(f'"{p.username}" "{unquote(p.password or "")}"\n' for p in logins)
    (folder / "users.txt").write_text(users)
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={host} port={parts.port or 5432}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder}/users.txt\npool_mode = transaction\n"
        "default_pool_size = 2\nmax_client_conn = 100\n"
    )
    return config


@asynccontextmanager
async def pgbouncer(folder: Path, database: TestDatabase) -> AsyncIterator[Pooled]:
    port = free_port()
    command = ["pgbouncer", "-q", str(write_config(folder, database, port))]
    if os.getuid() == 0:  # it refuses to be root
        command = ["unshare", "--user", "--map-user=1000", *command]
    process = subprocess.Popen(command)
    pooled = Pooled(database, port)
    try:
        async with asyncio.timeout(10):
            while not await _answers(pooled.app("memory")):
                assert process.poll() is None, "pgbouncer ended"
                await asyncio.sleep(0.05)
        yield pooled
    finally:
        process.terminate()
        process.wait(10)


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, statement_cache_size=0, timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def test_memory_users_stay_apart_when_transactions_share_connections(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = await emptied_database(postgres)
    async with pgbouncer(tmp_path, database) as pooled, memory_world(pooled) as world:  # type: ignore[arg-type]
        owners = [ALICE, BOB] * 10
        await asyncio.gather(*(world.say(o, f"{o.user_id} says {i}") for i, o in enumerate(owners)))
        await asyncio.gather(*(world.store.begin_turn(o, begin("t1")) for o in (ALICE, BOB)))
        await asyncio.gather(
            *(world.store.complete_turn(o, complete("t1", 1)) for o in (ALICE, BOB))
        )
        assert await world.settle() == 24
        for owner in (ALICE, BOB):
            listed = await world.store.list_memories(owner, MemoryFilter(), None, 50)
            said = [m.text for m in listed if "says" in m.text]
            assert len(said) == 10
            assert all(text.startswith(owner.user_id) for text in said)
            hits = (await world.recall(owner, "what does alice says?")).hits
            assert not any(("bob" if owner is ALICE else "alice") in h.memory.text for h in hits)
