"""Memory's audit log on a real Postgres: what was erased stands in it, and none of its text."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from echomesh import AuditEntry
from services.cli.audit_archive import archive
from services.cli.audit_files import read_archives
from services.memory.server import MIGRATIONS
from services.runtime.audit import AuditLog
from services.runtime.audit_reading import AuditReader
from services.runtime.errors import AppError
from services.runtime.identity import Identity
from services.runtime.postgres import Database
from tests.support.audited import audit_rows, entries_of, problems_of
from tests.support.memory_world import ALICE, BOB, NOW, World, memory_world
from tests.support.postgres import FreshDatabase, TestDatabase

_INSERT = """
    insert into memory.audit_log (tenant_id, actor, action, target, outcome, details)
    values ($1, $2, 'memory.erase', '', 'ok', '{}')"""
ADMIN = Identity("acme", "boss", frozenset({"admin"}))


@pytest_asyncio.fixture
async def database(fresh_database: FreshDatabase) -> TestDatabase:
    return await fresh_database("memory")


@pytest_asyncio.fixture
async def world(database: TestDatabase) -> AsyncIterator[World]:
    async with memory_world(database) as made:
        yield made


async def read(database: TestDatabase, identity: Identity = ADMIN) -> list[AuditEntry]:
    """The log of an administrator's tenant; the last entry tells of this reading."""
    app = Database(database.app("memory"), name="test")
    try:
        entries, token = await AuditReader(app, AuditLog("memory")).page(identity, 0, "")
    finally:
        await app.close()
    assert token == ""
    return entries_of(entries)


async def test_each_erasure_is_recorded_once_with_who_did_it(
    world: World, database: TestDatabase
) -> None:
    first, _ = await world.say(ALICE, "the spare key is under the mat", "the safe is green")
    await world.say(BOB, "bob's own", conversation="his secrets")
    for _ in range(2):
        await world.store.forget_memory(ALICE, first, NOW)
        await world.store.delete_conversation(BOB, "his secrets", NOW)

    entries = await read(database)

    digest = hashlib.sha256(b"his secrets").hexdigest()
    assert [(e.actor, e.action, e.target) for e in entries] == [
        ("user:alice", "memory.erase", f"memory:{first}"),
        ("user:bob", "conversation.erase", f"conversation_sha256:{digest}"),
        ("user:boss", "audit.read", "audit_log:memory"),
    ]
    assert '"messages": 1' in entries[1].details_json
    assert problems_of(entries, "memory") == []


async def test_nothing_of_what_was_erased_is_in_the_log(
    world: World, database: TestDatabase
) -> None:
    """Nor the conversation's id, which a client made up, perhaps of a name."""
    (message_id,) = await world.say(ALICE, "the vault code is 9417", conversation="about Karl")
    await world.store.forget_memory(ALICE, message_id, NOW)
    await world.store.delete_conversation(ALICE, "about Karl", NOW)
    text = "\n".join(str(dict(r)) for r in await audit_rows(database.owner("memory"), "memory"))
    assert "memory.erase" in text
    assert "conversation.erase" in text
    for hidden in ("vault", "9417", "Karl"):
        assert hidden not in text


async def test_an_erasure_that_fails_leaves_no_entry(world: World, database: TestDatabase) -> None:
    with pytest.raises(AppError):
        await world.store.forget_memory(ALICE, uuid.uuid4(), NOW)
    with pytest.raises(AppError):
        await world.store.delete_conversation(ALICE, "nowhere", NOW)
    assert [entry.action for entry in await read(database)] == ["audit.read"]


async def test_an_erasure_that_cannot_be_recorded_is_not_made(
    world: World, database: TestDatabase
) -> None:
    (message_id,) = await world.say(ALICE, "still here")
    owner = await asyncpg.connect(database.owner("memory"))
    try:
        await owner.execute("revoke insert on memory.audit_log from memory_app")
    finally:
        await owner.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.store.forget_memory(ALICE, message_id, NOW)
    assert (await world.store.get_memory(ALICE, message_id)).text == "still here"


async def test_people_who_erase_at_the_same_time_make_one_chain(
    world: World, database: TestDatabase
) -> None:
    owners = (ALICE, BOB)
    said = [(owner, await world.say(owner, *(f"{n}" for n in range(8)))) for owner in owners]
    await asyncio.gather(
        *(world.store.forget_memory(owner, each, NOW) for owner, ids in said for each in ids)
    )
    entries = await read(database)
    assert len(entries) == 17
    assert problems_of(entries, "memory") == []


async def test_another_tenant_sees_none_of_it(world: World, database: TestDatabase) -> None:
    (message_id,) = await world.say(ALICE, "mine")
    await world.store.forget_memory(ALICE, message_id, NOW)
    entries = await read(database, Identity("evil", "boss", frozenset({"admin"})))
    assert [entry.action for entry in entries] == ["audit.read"]


async def test_a_request_cannot_write_in_anybody_elses_name(database: TestDatabase) -> None:
    """Row-level security holds the application to the calling user."""
    app = Database(database.app("memory"), name="test")
    try:
        for tenant, actor in (("acme", "user:bob"), ("evil", "user:alice")):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with app.tenant(ALICE) as connection:
                    await connection.execute(_INSERT, tenant, actor)
    finally:
        await app.close()


async def test_memorys_log_can_be_archived_too(
    world: World, database: TestDatabase, tmp_path: Path
) -> None:
    for message_id in await world.say(ALICE, "one", "two"):
        await world.store.forget_memory(ALICE, message_id, NOW)
    later = datetime.now(UTC) + timedelta(hours=1)
    (moved,) = await archive(database.owner("memory"), "memory", later, tmp_path)
    assert (moved.first, moved.last) == (1, 1)
    entries = await read(database)
    assert [entry.seq for entry in entries] == [2, 3, 4]
    assert problems_of(entries, "memory") == []
    assert problems_of([*read_archives([moved.path], entries[0]), *entries], "memory") == []


async def test_both_services_logs_are_of_one_form() -> None:
    """The migrations differ in the schema's name, and in nothing else up to the policies."""
    auth = (MIGRATIONS.parents[1] / "auth" / "migrations" / "0003_audit.sql").read_text()
    memory = (MIGRATIONS / "0004_audit.sql").read_text()
    for one, other in (("memory.", "auth."), ("memory_", "auth_"), ("'memory", "'auth")):
        memory = memory.replace(one, other)
    assert memory.partition("CREATE POLICY")[0] == auth.partition("CREATE POLICY")[0]
