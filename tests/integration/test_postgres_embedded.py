"""Where and as whom the embedded server runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import asyncpg
import pytest

from services.runtime import pgbinaries
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.external import ExternalPostgres
from services.runtime.pgbinaries import (
    PostgresUnavailable,
    find_binaries,
    plan_runner,
    reachable_home,
)
from services.runtime.process import is_alive, short_folder
from tests.support.postgres import PostgresServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def test_the_newest_packaged_binaries_come_first() -> None:
    """A fresh folder gets the newest version; an old one gets its own or a clear line."""
    newest = find_binaries()
    assert newest.major >= 17
    assert find_binaries(newest.major) == newest
    with pytest.raises(PostgresUnavailable, match="PostgreSQL 3 was not found"):
        find_binaries(3)


async def test_files_stay_closed_to_others(tmp_path: Path) -> None:
    """Folders are 0700 and the passwords 0600, also when root starts the server."""
    folder = tmp_path / "postgres"
    server = EmbeddedPostgres(folder)
    await server.start()
    await server.stop()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "data").stat().st_mode & 0o777 == 0o700
    assert (folder / "passwords.json").stat().st_mode & 0o777 == 0o600


async def test_a_wrong_password_is_refused(postgres: PostgresServer) -> None:
    """The socket's folder is private, and the server asks for a password all the same."""
    wrong = postgres.embedded.admin_dsn.replace("postgres:", "postgres:x", 1)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


async def test_a_server_left_behind_is_ended_first(tmp_path: Path) -> None:
    """A server whose guard was killed does not keep its folder from the next start."""
    first = EmbeddedPostgres(tmp_path / "postgres")
    await first.start()
    left = first.postmaster_pid
    child = first._child
    assert child is not None
    await child.kill()
    second = EmbeddedPostgres(tmp_path / "postgres")
    await second.start()
    assert not is_alive(left)
    assert second.postmaster_pid != left
    await second.stop()


async def test_an_initdb_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    """Half a database cluster is never taken for a whole one."""
    folder = tmp_path / "postgres"
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(folder)
    await server.start()
    await server.stop()
    assert not (folder / "data.new").exists()


async def test_a_broken_data_folder_is_told_in_one_line(tmp_path: Path) -> None:
    """The user hears what PostgreSQL said, without a traceback."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    await server.stop()
    shutil.rmtree(tmp_path / "postgres" / "data" / "global")
    with pytest.raises(PostgresUnavailable) as failure:
        await server.start()
    assert str(failure.value).startswith("PostgreSQL did not start: ")
    assert "\n" not in str(failure.value)


def test_root_and_strangers_borrow_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses root and a user id without an account: neither runs it as it is."""
    accounts = pgbinaries._ordinary_accounts()
    assert 0 not in accounts
    for uid in (0, max(accounts) + 1_000_000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        monkeypatch.setattr(pgbinaries, "_works", lambda argv: True)
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
        runner = plan_runner(find_binaries())
        mapped = int(runner.prefix[2].removeprefix("--map-user="))
        assert mapped in accounts


@as_root
async def test_without_namespaces_it_runs_as_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a closed folder its data moves to where `nobody` may go, and is found again."""
    shared = Path("/var/tmp") / f"echomesh-test-{os.getpid()}"  # noqa: S108 - reachable by nobody
    monkeypatch.setattr(pgbinaries, "_NOBODY_HOME", shared)
    runner = plan_runner(find_binaries(), namespaces=False)
    assert runner.uid not in (None, 0)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    try:
        for _ in range(2):
            server = EmbeddedPostgres(closed / "postgres", runner=runner)
            await server.start()
            owner = Path(f"/proc/{server.postmaster_pid}").stat().st_uid
            await server.stop()
            assert owner == runner.uid
        assert reachable_home(runner, closed / "postgres").parent == shared
    finally:
        shutil.rmtree(shared, ignore_errors=True)
        shutil.rmtree(short_folder(closed / "postgres", runner.uid))


async def test_a_server_of_the_users_own_is_provisioned_alike(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Roles and schema appear there, with passwords kept in the data folder."""
    external = ExternalPostgres(postgres.embedded.admin_dsn, tmp_path / "postgres")
    await external.start()
    dsns = await external.provision(["routing"], "test_external")
    connection = await asyncpg.connect(dsns["routing"].app)
    assert await connection.fetchval("show search_path") == "routing"
    await connection.close()
    await postgres.embedded.provision(["routing"])  # gives the shared role its password back


async def test_a_server_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    """A wrong address names the setting and the host."""
    external = ExternalPostgres("postgresql://u:p@127.0.0.1:1/x", tmp_path / "postgres")
    with pytest.raises(PostgresUnavailable, match=r"ECHOMESH_POSTGRES_URL: 127\.0\.0\.1"):
        await external.start()
