"""The same request_id again: what was stored answers, and another body is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from services.memory.model import NewConversation
from services.runtime.errors import AppError, Reason
from tests.support.memory_world import (
    ALICE,
    BOB,
    NOW,
    World,
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


async def texts(world: World, conversation: str = "c1") -> list[str]:
    listed = await world.store.list_messages(ALICE, conversation, None, 50, False)
    return [m.text for m in listed]


# Appended messages


async def test_repeats_a_message_with_another_body_is_refused_alone(world: World) -> None:
    """What else the append holds is stored or found as if that message were not there."""
    first = await world.store.append_messages(ALICE, "c1", [message("one", "a")], NOW)
    batch = [message("one", "a"), message("two", "b"), message("not one", "a")]
    done = await world.store.append_messages(ALICE, "c1", batch, NOW)
    assert (done.stored, list(done.refused)) == (1, [2])
    assert list(done.message_ids) == [first.message_ids[0], batch[1].message_id, None]
    assert await texts(world) == ["one", "two"]


async def test_repeats_of_one_append_itself_count_too(world: World) -> None:
    batch = [message("one", "a"), message("one", "a"), message("other", "a")]
    done = await world.store.append_messages(ALICE, "c1", batch, NOW)
    assert (done.stored, list(done.refused)) == (1, [2])
    assert await texts(world) == ["one"]


async def test_repeats_an_append_of_nothing_else_is_refused_and_leaves_nothing(
    world: World,
) -> None:
    """Not even the conversation it was for, nor anything of another user's ids."""
    await world.store.append_messages(ALICE, "c1", [message("one", "a")], NOW)
    with pytest.raises(AppError) as refused:
        await world.store.append_messages(ALICE, "c2", [message("other", "a")], NOW)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    with pytest.raises(AppError) as missing:
        await world.store.get_conversation(ALICE, "c2")
    assert missing.value.reason is Reason.NOT_FOUND
    theirs = await world.store.append_messages(BOB, "c1", [message("other", "a")], NOW)
    assert (theirs.stored, list(theirs.refused)) == (1, [])


async def test_repeats_at_once_with_two_bodies_store_one_of_them(world: World) -> None:
    """Whoever comes second, in whichever conversation, is refused."""
    bodies = [f"body {n}" for n in range(4)]
    done = await asyncio.gather(
        *(
            world.store.append_messages(ALICE, f"c{n % 2}", [message(body, "same")], NOW)
            for n, body in enumerate(bodies)
        ),
        return_exceptions=True,
    )
    refused = [each for each in done if isinstance(each, AppError)]
    assert [error.reason for error in refused] == [Reason.REQUEST_ID_REUSED] * 3
    stored = [each for each in done if not isinstance(each, BaseException)]
    assert [each.stored for each in stored] == [1]


async def test_repeats_of_a_forgotten_message_bring_nothing_back(
    database: TestDatabase, world: World
) -> None:
    """Its body can no longer be compared: not even a hash of it is kept."""
    done = await world.store.append_messages(ALICE, "c1", [message("one", "a")], NOW)
    [message_id] = done.message_ids
    assert message_id is not None
    await world.store.forget_memory(ALICE, message_id, NOW)
    for text in ("one", "another"):
        again = await world.store.append_messages(ALICE, "c1", [message(text, "a")], NOW)
        assert (again.stored, list(again.message_ids)) == (0, [message_id])
    assert await texts(world) == [""]
    assert await _hashes(database) == 0


async def _hashes(database: TestDatabase) -> int:
    owner = await asyncpg.connect(database.owner("memory"))
    try:
        sql = "SELECT count(*) FROM memory.messages WHERE body_sha256 IS NOT NULL"
        return int(await owner.fetchval(sql))
    finally:
        await owner.close()


async def test_repeats_a_hash_that_release_1_left_behind_goes_with_the_next_reconciliation(
    database: TestDatabase, world: World
) -> None:
    """Release 1 erases messages too, and knows nothing of the hash beside the text."""
    [message_id] = await world.say(ALICE, "one")
    await world.store.forget_memory(ALICE, message_id, NOW)
    owner = await asyncpg.connect(database.owner("memory"))
    try:
        await owner.execute("UPDATE memory.messages SET body_sha256 = 'left'")
    finally:
        await owner.close()
    assert await world.jobs.erase_left_overs(ALICE, 10) == 1
    assert await world.jobs.erase_left_overs(ALICE, 10) == 0
    assert await _hashes(database) == 0


async def test_repeats_of_what_release_1_stored_are_known_by_their_text(world: World) -> None:
    """It stored no hash; the same text is taken for the same body."""
    old = message("one", "a", body_sha256=None)
    await world.store.append_messages(ALICE, "c1", [old], NOW)
    again = await world.store.append_messages(ALICE, "c1", [message("one", "a")], NOW)
    assert (again.stored, list(again.message_ids)) == (0, [old.message_id])
    with pytest.raises(AppError) as refused:
        await world.store.append_messages(ALICE, "c1", [message("other", "a")], NOW)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


# Memories


async def test_repeats_of_a_batch_of_memories_name_the_id_that_was_used(world: World) -> None:
    await world.store.remember(ALICE, [fact("one", "a")])
    with pytest.raises(AppError) as refused:
        await world.store.remember(ALICE, [fact("new", "b"), fact("other", "a")])
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert refused.value.metadata == {"request_id": "a"}


# Conversations


def conversation(request_id: str, conversation_id: str = "c1") -> NewConversation:
    return NewConversation(request_id, b"h", conversation_id, "T", {"k": "v"}, NOW)


async def test_repeats_the_id_of_a_deleted_conversation_is_free_again(world: World) -> None:
    """What is not found can be made, and starts empty; what is there cannot."""
    await world.store.create_conversation(ALICE, conversation("r1"))
    await world.say(ALICE, "gone")
    await world.store.delete_conversation(ALICE, "c1", NOW)
    made = await world.store.create_conversation(ALICE, conversation("r2"))
    assert (made.message_count, made.title, dict(made.metadata)) == (0, "T", {"k": "v"})
    assert await world.store.get_conversation(ALICE, "c1") == made
    assert await world.store.create_conversation(ALICE, conversation("r2")) == made
    assert await texts(world) == []
    await world.say(ALICE, "new")
    assert await texts(world) == ["new"]
    with pytest.raises(AppError) as refused:
        await world.store.create_conversation(ALICE, conversation("r3"))
    assert refused.value.reason is Reason.ALREADY_EXISTS
    assert await world.store.delete_conversation(ALICE, "c1", NOW) == 1


async def test_repeats_of_a_creation_do_not_bring_a_deleted_conversation_back(
    world: World,
) -> None:
    """A late repetition is told what Get says: it is not there."""
    await world.store.create_conversation(ALICE, conversation("r1"))
    await world.store.delete_conversation(ALICE, "c1", NOW)
    with pytest.raises(AppError) as gone:
        await world.store.create_conversation(ALICE, conversation("r1"))
    assert gone.value.reason is Reason.NOT_FOUND
    with pytest.raises(AppError) as other:
        await world.store.create_conversation(
            ALICE, replace(conversation("r1"), body_sha256=b"other")
        )
    assert other.value.reason is Reason.REQUEST_ID_REUSED


async def test_repeats_of_a_creation_at_once_make_one_conversation(world: World) -> None:
    """Under the client's own id and under one the service makes."""
    twins = [conversation("r1") for _ in range(3)]
    made = await asyncio.gather(*(world.store.create_conversation(ALICE, new) for new in twins))
    named = [conversation("r2", f"made-{n}") for n in range(3)]
    others = await asyncio.gather(*(world.store.create_conversation(ALICE, new) for new in named))
    assert {c.conversation_id for c in made} == {"c1"}
    assert len({c.conversation_id for c in others}) == 1
