"""A message that a client sends again for another reply is answered anew and stored once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.runtime.errors import AppError, Reason
from tests.support.memory_world import (
    ALICE,
    BOB,
    NOW,
    World,
    begin,
    complete,
    emptied_database,
    memory_world,
)
from tests.support.postgres import PostgresServer


@pytest_asyncio.fixture
async def world(postgres: PostgresServer) -> AsyncIterator[World]:
    async with memory_world(await emptied_database(postgres)) as made:
        yield made


async def test_a_message_sent_again_has_two_replies_and_is_stored_once(world: World) -> None:
    first = await world.store.begin_turn(ALICE, begin("t1", "hello", message_key="k"))
    one = await world.store.complete_turn(ALICE, complete("t1", 1, "hi"))
    second = await world.store.begin_turn(ALICE, begin("t2", "hello", message_key="k"))
    two = await world.store.complete_turn(ALICE, complete("t2", second.epoch, "hey"))
    assert (second.message, second.epoch, second.reply) == (first.message, 1, None)
    assert [one.in_reply_to, two.in_reply_to] == [first.message.message_id] * 2
    stored = await world.store.list_messages(ALICE, "c1", None, 10, False)
    assert [message.text for message in stored] == ["hello", "hi", "hey"]


async def test_the_same_request_sent_again_is_replayed_whatever_its_key(world: World) -> None:
    await world.store.begin_turn(ALICE, begin("t1", "hello", message_key="k"))
    reply = await world.store.complete_turn(ALICE, complete("t1", 1))
    again = await world.store.begin_turn(ALICE, begin("t1", "hello", message_key="k"))
    assert again.reply == reply


async def test_twins_with_one_key_at_once_store_one_message(world: World) -> None:
    turns = [begin(f"t{number}", "hello", message_key="k") for number in range(5)]
    begun = await asyncio.gather(*(world.store.begin_turn(ALICE, turn) for turn in turns))
    assert len({each.message.message_id for each in begun}) == 1
    assert len(await world.store.list_messages(ALICE, "c1", None, 10, False)) == 1


async def test_a_key_is_of_one_conversation_and_one_person(world: World) -> None:
    for owner, conversation in ((ALICE, "c1"), (ALICE, "c2"), (BOB, "c1")):
        new = begin("t-" + conversation, "hello", message_key="k", conversation_id=conversation)
        begun = await world.store.begin_turn(owner, new)
        assert begun.message.conversation_id == conversation
        stored = await world.store.list_messages(owner, conversation, None, 10, False)
        assert [message.text for message in stored] == ["hello"]


async def test_a_key_that_named_another_text_is_refused(world: World) -> None:
    await world.store.begin_turn(ALICE, begin("t1", "hello", message_key="k"))
    with pytest.raises(AppError) as refused:
        await world.store.begin_turn(ALICE, begin("t2", "goodbye", message_key="k"))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert len(await world.store.list_messages(ALICE, "c1", None, 10, False)) == 1


async def test_a_message_that_was_forgotten_is_answered_again_and_stays_forgotten(
    world: World,
) -> None:
    first = await world.store.begin_turn(ALICE, begin("t1", "hello", message_key="k"))
    await world.store.complete_turn(ALICE, complete("t1", 1, "hi"))
    await world.store.forget_memory(ALICE, first.message.message_id, NOW)
    again = await world.store.begin_turn(ALICE, begin("t2", "hello", message_key="k"))
    assert (again.message.message_id, again.reply) == (first.message.message_id, None)
    stored = await world.store.list_messages(ALICE, "c1", None, 10, False)
    assert [message.text for message in stored] == ["", "hi"]


async def test_the_turn_of_a_keyed_message_is_its_newest(world: World) -> None:
    begun = await world.store.begin_turn(ALICE, begin("t1", "hello", message_key="k"))
    reply = await world.store.complete_turn(ALICE, complete("t1", 1))
    await world.store.begin_turn(ALICE, begin("t2", "hello", message_key="k"))
    newest = await world.store.get_turn_of(ALICE, begun.message.message_id)
    of_reply = await world.store.get_turn_of(ALICE, reply.message_id)
    assert (newest.request_id, of_reply.request_id) == ("t2", "t1")
