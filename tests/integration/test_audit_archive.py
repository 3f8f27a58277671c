"""Old entries of the audit log moved into files: what is left, and the files, go on proving it."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from echomesh import AuditAnchor, AuditEntry
from services.cli.audit_archive import archive
from services.cli.audit_chain import ChainCheck
from services.cli.audit_files import read_archives
from services.cli.files import CommandError
from tests.support.audited import anchor_of, unguarded
from tests.support.audited_auth import do_everything, read
from tests.support.auth_world import AuthWorld, auth_world
from tests.support.postgres import FreshDatabase


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        await do_everything(made, await made.token())
        yield made


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _check(
    left: list[AuditEntry], folder: Path | None = None, anchors: list[AuditAnchor] | None = None
) -> ChainCheck:
    """The check of what is left, or of all there ever was: with the files of a folder."""
    check = ChainCheck("auth", anchors or [])
    for entry in (*(read_archives(_files(folder), left[0]) if folder else ()), *left):
        check.take(entry)
    check.end()
    return check


async def test_what_is_archived_and_what_is_left_are_one_chain(
    world: AuthWorld, tmp_path: Path
) -> None:
    """Twice, and every tenant's; sign-ins go on with the next number."""
    out, owner = tmp_path / "out", world.database.owner("auth")
    out.mkdir()
    before = await read(world)
    anchors = [anchor_of(entry) for entry in before]
    moved = {each.tenant_id: each for each in await archive(owner, "auth", _later(), out)}
    assert len(moved) == 2
    mine = moved[world.credentials["tenant_id"]]
    assert (mine.first, mine.last) == (1, before[-1].seq - 1)

    left = await read(world)
    assert [entry.action for entry in left[:2]] == ["audit.read", "audit.archive"]
    assert left[1].actor == "role:auth_owner"
    check = _check(left, anchors=anchors)
    assert (check.problems, check.archived) == ([], mine.last)
    assert (check.anchors_held, check.anchors_archived) == (2, len(anchors) - 2)

    await archive(owner, "auth", _later(), out)
    left = await read(world)
    check = _check(left, out, anchors)
    assert (check.problems, check.anchors_held) == ([], len(anchors))
    assert (check.seq, check.count) == (left[-1].seq, left[-1].seq)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in out.iterdir())


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_only_what_is_older_goes(world: AuthWorld, tmp_path: Path) -> None:
    entries = await read(world)
    owner = world.database.owner("auth")
    moved = await archive(owner, "auth", entries[4].time, tmp_path)
    assert [(each.first, each.last) for each in moved] == [(1, 4)]
    assert (await read(world))[0] == entries[4]
    assert await archive(owner, "auth", entries[4].time, tmp_path) == []


async def test_a_chain_that_is_not_whole_is_not_archived(world: AuthWorld, tmp_path: Path) -> None:
    """What an intruder did must not be carried away with the evidence."""
    owner = world.database.owner("auth")
    out = tmp_path / "out"
    out.mkdir()
    async with unguarded(owner, "auth") as intruder:
        await intruder.execute("update auth.audit_log set actor = 'user:x' where seq = 4")
    before = await read(world)
    with pytest.raises(CommandError, match="entry 4: its hash does not fit"):
        await archive(owner, "auth", _later(), out)
    assert (await read(world))[: len(before)] == before
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


async def test_a_folder_that_cannot_be_written_costs_nothing(
    world: AuthWorld, tmp_path: Path
) -> None:
    before = await read(world)
    with pytest.raises(CommandError, match="cannot be written"):
        await archive(world.database.owner("auth"), "auth", _later(), tmp_path / "missing")
    assert (await read(world))[: len(before)] == before


async def test_the_services_own_role_can_archive_nothing(world: AuthWorld, tmp_path: Path) -> None:
    """Not even by saying what the command says to the database."""
    app = await asyncpg.connect(world.database.app("auth"))
    try:
        for change in ("delete from", "truncate"):
            async with app.transaction():
                await app.execute("set local echomesh.audit_archive = 'on'")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with app.transaction():
                        await app.execute(f"{change} auth.audit_log")
    finally:
        await app.close()


async def test_a_beginning_that_is_deleted_in_no_archive_is_found(world: AuthWorld) -> None:
    async with unguarded(world.database.owner("auth"), "auth") as owner:
        await owner.execute("delete from auth.audit_log where seq < 5")
    (problem,) = _check(await read(world)).problems
    assert "entries 1 to 4 are missing" in problem.text
