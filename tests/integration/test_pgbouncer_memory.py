"""Memory's store, its outbox and its jobs behind PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest_asyncio

from services.memory.listening import listen
from services.memory.model import Owner
from services.memory.recall import MemoryFilter
from tests.support.memory_world import (
    ALICE,
    BOB,
    EVE,
    NOW,
    World,
    begin,
    complete,
    fact,
    memory_world,
    message,
)
from tests.support.pgbouncer import Pooler
from tests.support.pooled import owner_id

EVERYTHING = MemoryFilter()


@pytest_asyncio.fixture
async def world(pooler: Pooler) -> AsyncIterator[World]:
    """Memory's parts over that database."""
    async with memory_world(pooler.database) as made:
        yield made


# Memory's store


async def _chat(world: World, owner: Owner, number: int) -> None:
    """One turn, begun twice as after a lost answer, and completed twice."""
    name, chat = owner.user_id, f"chat-{number}"
    new = begin(f"turn-{number}", f"{name} asks {number}", conversation_id=chat)
    await world.store.begin_turn(owner, new)
    epoch = (await world.store.begin_turn(owner, new)).epoch
    reply = complete(f"turn-{number}", epoch, f"answer {number} for {name}")
    first = await world.store.complete_turn(owner, reply)
    assert first == await world.store.complete_turn(owner, reply)
    said = await world.store.list_messages(owner, chat, None, 10, False)
    assert [m.text for m in said] == [f"{name} asks {number}", f"answer {number} for {name}"]


async def test_pgbouncer_users_chat_at_once_over_one_connection(world: World) -> None:
    """Turns of two users interleave without mixing, repeats included."""
    await asyncio.gather(*(_chat(world, owner, n) for n in range(5) for owner in (ALICE, BOB)))
    for owner, stranger in ((ALICE, BOB), (BOB, ALICE)):
        texts = [m.text for m in await world.store.list_memories(owner, EVERYTHING, None, 50)]
        assert len(texts) == 10
        assert not any(stranger.user_id in text for text in texts)


async def test_pgbouncer_appends_of_one_conversation_are_numbered_without_gaps(
    pooler: Pooler, world: World
) -> None:
    """Two replicas append to one conversation at once; a repeated batch is stored once."""
    async with memory_world(pooler.database) as replica:
        batches = [[message(f"m {n}", f"id-{n}"), message(f"n {n}", f"in-{n}")] for n in range(8)]
        done = await asyncio.gather(
            *(
                each.store.append_messages(ALICE, "c1", batch, NOW)
                for batch in batches
                for each in (world, replica)
            )
        )
    listed = await world.store.list_messages(ALICE, "c1", None, 50, False)
    assert sum(d.stored for d in done) == 16
    assert [m.seq for m in listed] == list(range(1, 17))


async def test_pgbouncer_lists_go_on_page_by_page(world: World) -> None:
    """Pages of messages, conversations and memories join to the whole, another user in between."""
    for owner in (ALICE, BOB):
        for chat in range(3):
            await world.say(owner, *(f"{chat}.{n}" for n in range(4)), conversation=f"c{chat}")
    for owner in (ALICE, BOB):
        store = world.store
        numbers, place = [], None
        while page := await store.list_messages(owner, "c1", place, 3, False):
            await store.list_messages(BOB if owner is ALICE else ALICE, "c2", None, 3, True)
            numbers += [m.seq for m in page]
            place = page[-1].seq
        assert numbers == [1, 2, 3, 4]
        chats = await _all_conversations(world, owner)
        assert sorted(chats) == ["c0", "c1", "c2"]
        assert len(set(await _all_memories(world, owner))) == 12


async def _all_conversations(world: World, owner: Owner) -> list[str]:
    found: list[str] = []
    after = None
    while page := await world.store.list_conversations(owner, {}, after, 2):
        found += [c.conversation_id for c in page]
        after = (page[-1].created_at, page[-1].conversation_id)
    return found


async def _all_memories(world: World, owner: Owner) -> list[object]:
    found: list[object] = []
    after = None
    while page := await world.store.list_memories(owner, EVERYTHING, after, 5):
        found += [m.memory_id for m in page]
        after = (page[-1].said_at, page[-1].memory_id)
    return found


async def test_pgbouncer_recall_reads_the_askers_rows_with_and_without_the_index(
    world: World,
) -> None:
    """Pending rows, indexed rows and keyword recall are the asker's own, asked at the same time."""
    for owner in (ALICE, BOB):
        await world.say(owner, f"{owner.user_id} keeps bees on the roof", "it rained all day")
        await world.store.remember(owner, [fact(f"{owner.user_id} sells honey")])

    async def ask_everybody() -> None:
        recalled = await asyncio.gather(
            *(world.recall(owner, "who keeps bees?") for owner in [ALICE, BOB] * 5)
        )
        for owner, answer in zip([ALICE, BOB] * 5, recalled, strict=True):
            assert answer.hits[0].memory.text == f"{owner.user_id} keeps bees on the roof"
            assert answer.hits[0].next_text == "it rained all day"
            stranger = "bob" if owner is ALICE else "alice"
            assert not any(stranger in hit.memory.text for hit in answer.hits)

    await ask_everybody()
    assert await world.settle() == 6
    assert await world.store.index_lag(ALICE) == (3, 0)
    await ask_everybody()
    world.index.away = world.embedder.away = True
    await ask_everybody()


# The outbox and its jobs


async def test_pgbouncer_two_runners_share_the_outbox_without_doing_a_job_twice(
    pooler: Pooler, world: World
) -> None:
    """Claims are exact over the jobs' pooled address, and every memory is indexed once."""
    for owner in (ALICE, BOB, EVE):
        await world.say(owner, *(f"line {n}" for n in range(70)))
    async with memory_world(pooler.database) as replica:
        claimed = await asyncio.gather(
            *(each.jobs.claim(20, 30) for _ in range(3) for each in (world, replica))
        )
        keys = [(job.owner, job.memory_id) for jobs in claimed for job in jobs]
        assert len(keys) == len(set(keys)) == 120
        await asyncio.gather(*(world.jobs.hand_back(jobs) for jobs in claimed))
        ran = await asyncio.gather(world.settle(), replica.settle())
        assert sum(ran) == 210
        assert len(world.embedder.embedded) + len(replica.embedder.embedded) == 210
    assert (await world.jobs.lag())[0] == 0
    for owner in (ALICE, BOB, EVE):
        assert await world.store.index_lag(owner) == (70, 0)


async def test_pgbouncer_the_jobs_role_reads_and_walks_as_one_owner_at_a_time(
    world: World,
) -> None:
    """Jobs of many owners at once on one connection see the rows of the one they are about."""
    ids = {owner: await world.say(owner, owner_id(owner)) for owner in (ALICE, BOB, EVE)}
    everything = [memory_id for found in ids.values() for memory_id in found]
    owners = [*ids] * 5
    read = await asyncio.gather(*(world.jobs.rows(o, "fake-1", everything) for o in owners))
    assert [[r.memory.text for r in rows] for rows in read] == [[owner_id(o)] for o in owners]
    assert set(await world.jobs.owners(None, 10)) == set(ids)


async def test_pgbouncer_a_runner_polls_and_a_listener_on_the_direct_address_wakes_it(
    pooler: Pooler, world: World
) -> None:
    """NOTIFY of a pooled transaction arrives at a LISTEN past the pooler."""
    woken = asyncio.Event()
    listening = asyncio.create_task(listen(pooler.direct.owner("memory"), woken.set))
    try:
        async with asyncio.timeout(60):
            await woken.wait()  # it looks once when it begins to listen
            woken.clear()
            await world.say(ALICE, "wake up")
            await woken.wait()
        assert await world.settle() == 1
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
