"""Nothing in auth's audit log can be undone: no role may, and who can all the same is found out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.support.audited import anchor_of, problems_of, unguarded
from tests.support.audited_auth import do_everything, read
from tests.support.auth_world import AuthWorld, auth_world
from tests.support.postgres import FreshDatabase

INSERT = """
    insert into auth.audit_log (tenant_id, actor, action, target, outcome, details)
    values ($1, $2, 'x', $3, 'ok', $4)"""


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


async def test_the_chain_that_postgres_writes_is_the_one_that_the_check_computes(
    world: AuthWorld,
) -> None:
    """Two programs, one form; in pages as short as can be, too."""
    token = await world.token()
    await do_everything(world, token)
    entries = await read(world, token, page_size=2)
    assert len(entries) > 15
    assert problems_of(entries, "auth", [anchor_of(e) for e in entries]) == []


async def test_texts_of_any_kind_hash_alike_in_both(world: AuthWorld) -> None:
    """Lengths are counted in bytes, not in characters."""
    app = await asyncpg.connect(world.database.app("auth"))
    tenant_id = world.credentials["tenant_id"]
    try:
        async with app.transaction():
            await app.execute("select set_config('app.tenant_id', $1, true)", tenant_id)
            for text in ("ä", "日本", "🜂", "a\nb\\c'd\"", ""):
                details = json.dumps({"k": text}, ensure_ascii=False)
                await app.execute(INSERT, tenant_id, f"user:{text}", text, details)
    finally:
        await app.close()
    assert problems_of(await read(world), "auth") == []


async def test_no_role_can_change_or_remove_an_entry(world: AuthWorld) -> None:
    """The owner is held by the trigger, the others by their rights."""
    for kind in ("app", "jobs", "owner"):
        connection = await asyncpg.connect(getattr(world.database, kind)("auth"))
        try:
            for change in ("update {} set actor = 'x'", "delete from {}", "truncate {}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(change.format("auth.audit_log"))
        finally:
            await connection.close()


async def test_the_application_cannot_say_what_the_chain_says(world: AuthWorld) -> None:
    """Number, time and hashes are the trigger's; code that is taken over cannot backdate."""
    app = await asyncpg.connect(world.database.app("auth"))
    try:
        for column in ("seq", "written_at", "previous_hash", "hash"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(f"insert into auth.audit_log ({column}) values (default)")
    finally:
        await app.close()


async def test_the_application_cannot_write_into_another_tenants_log(world: AuthWorld) -> None:
    app = await asyncpg.connect(world.database.app("auth"))
    try:
        async with app.transaction():
            await app.execute("select set_config('app.tenant_id', 'another', true)")
            assert await app.fetchval("select count(*) from auth.audit_log") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(INSERT, world.credentials["tenant_id"], "user:x", "", "{}")
    finally:
        await app.close()


async def _tampered(world: AuthWorld, *statements: str) -> list[tuple[int, str]]:
    """What the check finds once an intruder with the owner's rights has been there."""
    token = await world.token()
    await do_everything(world, token)
    entries = await read(world, token)
    anchors = [anchor_of(entries[-1])]
    async with unguarded(world.database.owner("auth"), "auth") as owner:
        for sql in statements:
            await owner.execute(sql)
    found: list[Any] = problems_of(await read(world, token), "auth", anchors)
    return found


async def test_an_edited_row_is_detected(world: AuthWorld) -> None:
    found = await _tampered(world, "update auth.audit_log set actor = 'user:x' where seq = 4")
    assert found == [(4, "its hash does not fit what it says: edited")]


async def test_a_deleted_row_is_detected(world: AuthWorld) -> None:
    found = await _tampered(world, "delete from auth.audit_log where seq = 4")
    assert [seq for seq, _ in found] == [5, 5]


async def test_reordered_rows_are_detected(world: AuthWorld) -> None:
    """Two rows that change places, numbers and all."""
    found = await _tampered(
        world,
        "update auth.audit_log set seq = 1000 where seq = 4",
        "update auth.audit_log set seq = 4 where seq = 5",
        "update auth.audit_log set seq = 5 where seq = 1000",
    )
    assert {4, 5, 6} == {seq for seq, _ in found}


async def test_a_truncated_log_is_detected_by_its_anchor(world: AuthWorld) -> None:
    """What is left is a chain that is whole; the anchor knows of more."""
    token = await world.token()
    await do_everything(world, token)
    entries = await read(world, token)
    async with unguarded(world.database.owner("auth"), "auth") as owner:
        await owner.execute("delete from auth.audit_log where seq > 6")
    left = await read(world, token)
    assert problems_of(left, "auth") == []
    found = problems_of(left, "auth", [anchor_of(entries[-1])])
    assert found == [(len(entries), "an anchor names this entry, and it is not there: cut off")]
