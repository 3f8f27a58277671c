"""What the memory store promises of conversations, messages, turns and memories."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from services.memory.model import CorpusNumbers, MemoryChange, NewConversation
from services.memory.postgres import turns
from services.memory.recall import MemoryFilter
from services.runtime.errors import AppError, Reason
from services.runtime.postgres import Database
from tests.support.memory_world import (
    ALICE,
    BOB,
    EVE,
    NOW,
    World,
    begin,
    complete,
    emptied_database,
    fact,
    memory_world,
    message,
)
from tests.support.postgres import PostgresServer, TestDatabase


@pytest_asyncio.fixture
async def database(postgres: PostgresServer) -> TestDatabase:
    return await emptied_database(postgres)


@pytest_asyncio.fixture
async def world(database: TestDatabase) -> AsyncIterator[World]:
    async with memory_world(database) as made:
        yield made


def reason(caught: pytest.ExceptionInfo[AppError]) -> Reason:
    return caught.value.reason


async def test_memory_every_table_forces_row_security_and_has_a_policy(
    database: TestDatabase,
) -> None:
    """No table, partitions included, can be read without a policy; owners are not exempt."""
    admin = await asyncpg.connect(database.admin_dsn)
    try:
        rows = await admin.fetch(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'memory'::regnamespace "
            "AND c.relkind IN ('r', 'p') AND c.relname <> 'schema_migrations' "
            "AND NOT (c.relrowsecurity AND c.relforcerowsecurity "
            "AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid))"
        )
        parts = await admin.fetchval(
            "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent "
            "WHERE c.relname = 'messages' AND c.relkind = 'p'"
        )
    finally:
        await admin.close()
    assert [row["relname"] for row in rows] == []
    assert parts == 8


async def test_memory_app_role_sees_nothing_without_a_subject_and_owner_sees_all(
    database: TestDatabase, world: World
) -> None:
    await world.say(ALICE, "hello there")
    app = await asyncpg.connect(database.app("memory"))
    owner = await asyncpg.connect(database.owner("memory"))
    try:
        assert await app.fetchval("SELECT count(*) FROM memory.messages") == 0
        assert await owner.fetchval("SELECT count(*) FROM memory.messages") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetchval("SELECT count(*) FROM memory.messages_0")
    finally:
        await app.close()
        await owner.close()


async def test_memory_append_numbers_messages_in_order_and_leaves_duplicates_alone(
    world: World,
) -> None:
    first, second = message("one", "a"), message("two", "b")
    done = await world.store.append_messages(ALICE, "c1", [first, second, first], NOW)
    again = await world.store.append_messages(
        ALICE, "c1", [message("one", "a"), message("three", "c")], NOW
    )
    listed = await world.store.list_messages(ALICE, "c1", None, 10, False)
    assert (done.stored, again.stored) == (2, 1)
    assert [first.message_id, second.message_id, first.message_id] == list(done.message_ids)
    assert first.message_id == again.message_ids[0]
    assert [(m.seq, m.text) for m in listed] == [(1, "one"), (2, "two"), (3, "three")]


async def test_memory_concurrent_appends_give_each_message_its_own_number(world: World) -> None:
    await asyncio.gather(*(world.say(ALICE, f"m {i}", f"n {i}") for i in range(10)))
    listed = await world.store.list_messages(ALICE, "c1", None, 50, False)
    assert list(range(1, 21)) == [m.seq for m in listed]


async def test_memory_same_request_at_once_is_stored_once(world: World) -> None:
    done = await asyncio.gather(
        *(
            world.store.append_messages(ALICE, f"c{i}", [message("once", "same")], NOW)
            for i in range(4)
        )
    )
    assert sum(d.stored for d in done) == 1
    assert len({d.message_ids[0] for d in done}) == 1


async def test_memory_other_users_ids_are_not_found(world: World) -> None:
    [message_id] = await world.say(ALICE, "my secret")
    for other in (BOB, EVE):
        for call in (
            world.store.get_message(other, message_id),
            world.store.get_memory(other, message_id),
            world.store.get_conversation(other, "c1"),
            world.store.list_messages(other, "c1", None, 10, False),
            world.store.delete_conversation(other, "c1", NOW),
            world.store.forget_memory(other, message_id, NOW),
            world.store.memory_versions(other, message_id),
        ):
            with pytest.raises(AppError) as caught:
                await call
            assert reason(caught) == Reason.NOT_FOUND
        assert await world.store.list_memories(other, MemoryFilter(), None, 10) == []


async def test_memory_conversations_are_idempotent_listed_by_keyset_and_by_metadata(
    world: World,
) -> None:
    def new(number: int) -> NewConversation:
        return NewConversation(
            f"r{number}", b"h", f"c{number}", "T", {"n": str(number)}, NOW + timedelta(number)
        )

    for number in (1, 2, 3):
        await world.store.create_conversation(ALICE, new(number))
    again = await world.store.create_conversation(ALICE, replace(new(1), conversation_id="x"))
    first = await world.store.list_conversations(ALICE, {}, None, 2)
    key = (first[-1].created_at, first[-1].conversation_id)
    rest = await world.store.list_conversations(ALICE, {}, key, 2)
    tagged = await world.store.list_conversations(ALICE, {"n": "2"}, None, 5)
    assert again.conversation_id == "c1"
    assert [c.conversation_id for c in [*first, *rest]] == ["c3", "c2", "c1"]
    assert [c.conversation_id for c in tagged] == ["c2"]
    with pytest.raises(AppError) as caught:
        await world.store.create_conversation(ALICE, replace(new(1), body_sha256=b"other"))
    assert reason(caught) == Reason.REQUEST_ID_REUSED
    with pytest.raises(AppError) as caught:
        await world.store.create_conversation(ALICE, replace(new(1), request_id="new"))
    assert reason(caught) == Reason.ALREADY_EXISTS


async def test_memory_turn_is_stored_replayed_and_refused_to_another_body(world: World) -> None:
    await world.say(ALICE, "earlier")
    begun = await world.store.begin_turn(ALICE, begin("t1"))
    reply = await world.store.complete_turn(ALICE, complete("t1", begun.epoch))
    replayed = await world.store.begin_turn(ALICE, begin("t1"))
    with pytest.raises(AppError) as caught:
        await world.store.begin_turn(ALICE, begin("t1", "another text"))
    assert reason(caught) == Reason.REQUEST_ID_REUSED
    assert (begun.epoch, begun.reply, begun.message.seq) == (1, None, 2)
    assert [m.text for m in begun.recent] == ["earlier"]
    assert begun.message.message_id == reply.in_reply_to
    assert replayed.reply == reply
    assert begun.message == replayed.message


async def test_memory_newest_runner_of_a_turn_wins_and_the_older_one_is_refused(
    world: World,
) -> None:
    old = await world.store.begin_turn(ALICE, begin("t1"))
    new = await world.store.begin_turn(ALICE, begin("t1"))
    with pytest.raises(AppError) as caught:
        await world.store.complete_turn(ALICE, complete("t1", old.epoch, "stale"))
    reply = await world.store.complete_turn(ALICE, complete("t1", new.epoch, "fresh"))
    repeated = await world.store.complete_turn(ALICE, complete("t1", new.epoch, "again"))
    assert reason(caught) == Reason.TURN_SUPERSEDED
    assert (old.epoch, new.epoch) == (1, 2)
    assert reply.text == "fresh"
    assert reply == repeated
    assert len(await world.store.list_messages(ALICE, "c1", None, 10, False)) == 2


@pytest.mark.parametrize("partial", ["half a rep", ""])
async def test_memory_a_cut_off_reply_is_replaced_in_its_place_when_the_turn_is_run_again(
    world: World, partial: str
) -> None:
    """A client whose connection broke asks again: it gets a whole reply, stored once."""
    first = await world.store.begin_turn(ALICE, begin("t1"))
    cut_off = replace(complete("t1", first.epoch, partial), finish_reason="cancelled")
    kept = await world.store.complete_turn(ALICE, cut_off)
    again = await world.store.begin_turn(ALICE, begin("t1"))
    assert (again.reply, again.epoch) == (None, 2)
    whole = await world.store.complete_turn(ALICE, complete("t1", again.epoch, "a whole reply"))
    replayed = await world.store.begin_turn(ALICE, begin("t1"))
    assert (whole.message_id, whole.seq) == (kept.message_id, kept.seq)
    assert (whole.text, whole.finish_reason) == ("a whole reply", "stop")
    assert replayed.reply == whole
    assert (await world.store.get_memory(ALICE, whole.message_id)).text == "a whole reply"


async def test_memory_twin_begins_at_once_store_one_message(world: World) -> None:
    begun = await asyncio.gather(*(world.store.begin_turn(ALICE, begin("t1")) for _ in range(5)))
    assert sorted(b.epoch for b in begun) == [1, 2, 3, 4, 5]
    assert len({b.message.message_id for b in begun}) == 1
    assert len(await world.store.list_messages(ALICE, "c1", None, 10, False)) == 1


async def test_memory_branch_sees_the_line_to_its_parent_only(world: World) -> None:
    first = await world.store.begin_turn(ALICE, begin("t1", "one"))
    await world.store.complete_turn(ALICE, complete("t1", 1, "reply one"))
    await world.store.begin_turn(ALICE, begin("t2", "two"))
    parent = first.message.message_id
    branch = await world.store.begin_turn(ALICE, begin("t3", "b", parent_message_id=parent))
    assert [m.text for m in branch.recent] == ["one"]
    with pytest.raises(AppError) as caught:
        await world.store.begin_turn(
            ALICE, begin("t4", "b", parent_message_id=parent, conversation_id="c2")
        )
    assert reason(caught) == Reason.NOT_FOUND


async def test_memory_remember_is_idempotent_all_or_none_and_refuses_another_body(
    world: World,
) -> None:
    new = fact("the locker code is 4711", "r1")
    [stored] = await world.store.remember(ALICE, [new])
    [again] = await world.store.remember(ALICE, [replace(new, memory_id=uuid.uuid4())])
    with pytest.raises(AppError) as caught:
        await world.store.remember(ALICE, [fact("never stored"), fact("other", "r1")])
    assert stored == again
    assert reason(caught) == Reason.REQUEST_ID_REUSED
    assert len(await world.store.list_memories(ALICE, MemoryFilter(), None, 10)) == 1


def change(memory_id: uuid.UUID, text: str, request_id: str, version: int = 0) -> MemoryChange:
    return MemoryChange(request_id, text.encode(), memory_id, version, NOW, text=text)


async def test_memory_update_keeps_history_and_refuses_a_stale_version(world: World) -> None:
    [stored] = await world.store.remember(ALICE, [fact("code 1")])
    updated = await world.store.update_memory(ALICE, change(stored.memory_id, "code 2", "u1", 1))
    repeated = await world.store.update_memory(ALICE, change(stored.memory_id, "code 2", "u1", 1))
    with pytest.raises(AppError) as caught:
        await world.store.update_memory(ALICE, change(stored.memory_id, "code 3", "u2", 1))
    versions = await world.store.memory_versions(ALICE, stored.memory_id)
    assert reason(caught) == Reason.VERSION_CONFLICT
    assert caught.value.metadata == {"version": "2"}
    assert updated == repeated
    assert [(m.version, m.text) for m in versions] == [(2, "code 2"), (1, "code 1")]


async def test_memory_forget_erases_every_copy_of_the_text(
    database: TestDatabase, world: World
) -> None:
    [memory_id] = await world.say(ALICE, "the unspeakable word is xyzzy")
    await world.settle()
    await world.store.update_memory(ALICE, change(memory_id, "xyzzy indeed", "u1"))
    await world.store.forget_memory(ALICE, memory_id, NOW)
    await world.store.forget_memory(ALICE, memory_id, NOW)
    await world.settle()
    owner = await asyncpg.connect(database.owner("memory"))
    try:
        for table in ("messages", "memories", "memory_versions", "outbox"):
            found = await owner.fetchval(
                f"SELECT count(*) FROM memory.{table} t WHERE t::text LIKE '%xyzzy%'"
            )
            assert found == 0, table
        assert await owner.fetchval("SELECT count(*) FROM memory.memory_vectors") == 0
        assert await owner.fetchval("SELECT sum(df) FROM memory.terms") == 0
    finally:
        await owner.close()
    assert world.index.points == {}
    with pytest.raises(AppError) as caught:
        await world.store.get_memory(ALICE, memory_id)
    assert reason(caught) == Reason.NOT_FOUND


async def test_memory_deleted_conversation_takes_its_memories_along(world: World) -> None:
    await world.say(ALICE, "one", "two")
    await world.say(ALICE, "kept", conversation="c2")
    assert await world.store.delete_conversation(ALICE, "c1", NOW) == 2
    assert await world.store.delete_conversation(ALICE, "c1", NOW) == 2
    await world.settle()
    left = await world.store.list_memories(ALICE, MemoryFilter(), None, 10)
    assert [m.text for m in left] == ["kept"]
    assert len(world.index.points) == 1
    with pytest.raises(AppError):
        await world.store.get_conversation(ALICE, "c1")


async def corpus(world: World, terms: list[str]) -> CorpusNumbers:
    """Alice's corpus in numbers."""
    return (await world.store.overview(ALICE, terms, MemoryFilter(), 0))[0]


async def test_memory_term_statistics_follow_every_write(world: World) -> None:
    ids = await world.say(ALICE, "red apples", "green apples", "blue sky")
    before = await corpus(world, ["appl", "red", "sky"])
    await world.store.update_memory(ALICE, change(ids[0], "red cars", "u1"))
    await world.store.forget_memory(ALICE, ids[2], NOW)
    after = await corpus(world, ["appl", "red", "sky"])
    assert (before.documents, before.document_frequency) == (3, {"appl": 2, "red": 1, "sky": 1})
    assert (after.documents, after.document_frequency) == (2, {"appl": 1, "red": 1})
    assert list(after.speakers) == ["Alice"]


async def test_memory_writers_with_common_terms_do_not_deadlock(world: World) -> None:
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    texts = [" ".join(words[i % 5 :] + words[: i % 5]) for i in range(20)]
    await asyncio.gather(
        *(world.say(ALICE, text, conversation=f"c{i}") for i, text in enumerate(texts))
    )
    assert (await corpus(world, ["alpha"])).document_frequency["alpha"] == 20


async def test_memory_list_is_newest_first_filtered_and_paged(world: World) -> None:
    for day in range(5):
        said = NOW + timedelta(days=day)
        await world.store.append_messages(
            ALICE, "c1", [message(f"day {day}", said_at=said, metadata={"d": str(day % 2)})], NOW
        )
    page = await world.store.list_memories(ALICE, MemoryFilter(), None, 3)
    key = (page[-1].said_at, page[-1].memory_id)
    rest = await world.store.list_memories(ALICE, MemoryFilter(), key, 3)
    narrowed = MemoryFilter(
        since=NOW + timedelta(days=1),
        until=NOW + timedelta(days=4),
        conversation_id="c1",
        speaker="Alice",
        kinds=frozenset({"episodic"}),
        metadata={"d": "1"},
    )
    found = await world.store.list_memories(ALICE, narrowed, None, 10)
    assert [m.text for m in [*page, *rest]] == ["day 4", "day 3", "day 2", "day 1", "day 0"]
    assert [m.text for m in found] == ["day 3", "day 1"]


async def test_memory_a_turn_begun_while_its_conversation_is_deleted_leaves_nothing_behind(
    database: TestDatabase, world: World
) -> None:
    """Else its late reply would bring the deleted conversation back."""
    await world.say(ALICE, "hello there")
    app = Database(database.app("memory"), name="test-begin")
    try:
        async with app.tenant(ALICE) as conn:
            begun = await turns.begin(conn, ALICE, begin("r1"))
            deleting = asyncio.create_task(world.store.delete_conversation(ALICE, "c1", NOW))
            while not await conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        assert await deleting == 2
    finally:
        await app.close()
    with pytest.raises(AppError) as late:
        await world.store.complete_turn(ALICE, complete("r1", begun.epoch))
    assert reason(late) is Reason.NOT_FOUND
    with pytest.raises(AppError) as gone:
        await world.store.get_conversation(ALICE, "c1")
    assert reason(gone) is Reason.NOT_FOUND
