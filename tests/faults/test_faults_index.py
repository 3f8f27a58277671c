"""Case 8: the index is away, cut off, frozen or slow. Case 9: memory dies between its two stores.

Memory runs as real processes over a Qdrant that they share; what lies between them is a network
that a test can spoil. Each test's first line is the promise that it checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from echomesh.memory.v1 import memory_pb2 as mpb
from services.memory.index import IndexPoint
from services.memory.recall import document_terms, document_vector
from services.runtime.errors import AppError
from tests.support.index_world import ALICE, World, index_world, numbered, recall, remember, texts
from tests.support.memory_fakes import embed
from tests.support.memory_process import MemoryReplica
from tests.support.memory_world import emptied_database
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

RECALL_LIMIT_S = 6.0
"""Less than any call to the index may take by itself, so that waiting for one fails the test."""


@pytest_asyncio.fixture
async def world(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[World]:
    async with index_world(tmp_path, await emptied_database(postgres)) as made:
        yield made


async def test_index_killed_recall_says_degraded_finds_all_and_the_index_catches_up(
    world: World,
) -> None:
    """Without its index memory recalls by keyword, says so, and misses nothing acknowledged.

    That holds for what was stored before and for what is stored meanwhile; the index catches up
    after its return, and reconcile then finds nothing amiss.
    """
    async with world.memory() as memory:
        (before,) = numbered([1])
        await remember(memory, before)
        await until(world.in_step, "the first memory's indexing")
        world.qdrant.kill()
        meanwhile = numbered(range(2, 1002))
        await remember(memory, *meanwhile)
        for number in (1, 2, 500, 1001):
            answer = await recall(memory, f"What is the locker code of shed w{number:04d}x?")
            assert "index" in answer.degraded
            assert numbered([number])[0] in texts(answer)
        await asyncio.to_thread(world.qdrant.start)  # embeddings answer from this loop
        await until(world.in_step, "catching up with 1,000 memories")
        answer = await recall(memory, "What is the locker code of shed w0777x?")
        assert (list(answer.degraded), texts(answer)[:1]) == ([], numbered([777]))
        await _reconcile_finds_nothing(memory)


@pytest.mark.parametrize("fault", ["partition", "freeze"])
async def test_index_that_answers_nothing_costs_recall_no_more_than_its_share_of_the_time(
    world: World, fault: str
) -> None:
    """A cut off or frozen index cannot hang recall: it answers within its call's deadline.

    It answers by keyword, says so, misses nothing acknowledged, and uses the index again later.
    """
    async with world.memory() as memory:
        await remember(memory, *numbered([1]))
        await until(world.in_step, "the first memory's indexing")
        world.network.partition() if fault == "partition" else world.qdrant.freeze()
        await remember(memory, *numbered([2]))
        for _ in range(3):  # the first has to wait for it, later ones may know
            for number in (1, 2):
                question = f"What is the locker code of shed w{number:04d}x?"
                answer = await recall(memory, question, RECALL_LIMIT_S)
                assert "index" in answer.degraded
                assert numbered([number])[0] in texts(answer)
        world.network.heal() if fault == "partition" else world.qdrant.thaw()
        await until(world.in_step, "catching up")
        await until(lambda: _undegraded(memory), "recall with the index")


async def _undegraded(memory: MemoryReplica) -> bool:
    answer = await recall(memory, "What is the locker code of shed w0002x?")
    return not answer.degraded and numbered([2])[0] in texts(answer)


async def test_index_that_is_slow_still_takes_part_when_there_is_time(world: World) -> None:
    """200 ms more each way, and loss, degrade nothing while there is time for it."""
    world.network.delay(0.2)
    world.network.stalls(every=25, seconds=0.2)
    async with world.memory(recall_index_s="5") as memory:
        await remember(memory, *numbered(range(1, 51)))
        await until(world.in_step, "indexing over a slow network")
        answer = await recall(memory, "What is the locker code of shed w0042x?")
        assert (list(answer.degraded), texts(answer)[:1]) == ([], numbered([42]))


async def test_index_whose_connections_are_reset_again_and_again_ends_equal_to_the_tables(
    world: World,
) -> None:
    """Connections that break in the middle of writes lose and double nothing."""
    async with world.memory() as memory:
        for start in range(1, 301, 30):
            await remember(memory, *numbered(range(start, start + 30)))
            world.network.reset()
        await until(world.in_step, "indexing across resets")
        assert len(await world.indexed()) == 300


async def test_memory_killed_between_the_commit_and_the_index_write_is_made_good(
    world: World,
) -> None:
    """What Postgres has is recalled although the index never got it, and the index gets it."""
    async with world.memory() as memory:
        await until(lambda: _is_prepared(world), "the collection")
        world.network.partition()
        stored = await remember(memory, *numbered(range(1, 101)))
        await until(lambda: _is_claimed(world), "the jobs' start")
        await memory.kill()
    assert await world.indexed() == {}
    world.network.heal()
    async with world.memory("two") as memory:
        answer = await recall(memory, "What is the locker code of shed w0042x?")
        assert texts(answer)[:1] == numbered([42])
        await until(world.in_step, "the index's catching up")
        assert set(await world.indexed()) == set(stored)
        await _reconcile_finds_nothing(memory)


async def test_memory_killed_between_the_index_write_and_its_noting_is_made_good(
    world: World,
) -> None:
    """An index write whose answer never came is done again and changes nothing."""
    async with world.memory() as memory:
        await until(lambda: _is_prepared(world), "the collection")
        world.network.lose_answers()
        stored = await remember(memory, *numbered(range(1, 51)))
        await until(lambda: _has_points(world, 50), "the index write")
        await memory.kill()
    assert await world.jobs() == 50
    world.network.heal()
    async with world.memory("two") as memory:
        await until(world.in_step, "the jobs' end")
        assert set(await world.indexed()) == set(stored)
        await _reconcile_finds_nothing(memory)


async def test_memory_killed_before_its_jobs_are_taken_off_is_made_good(world: World) -> None:
    """Jobs that are through but were not taken off are found again and change nothing."""
    async with world.memory() as memory:
        await until(lambda: _is_prepared(world), "the collection")
        world.network.lose_answers()
        stored = await remember(memory, *numbered(range(1, 51)))
        await until(lambda: _has_points(world, 50), "the index write")
        async with world.tables.transaction():
            await world.tables.execute("LOCK TABLE memory.outbox IN EXCLUSIVE MODE")
            world.network.heal()
            await until(lambda: _is_noted(world, 50), "the noting in the table")
            await memory.kill()
    assert await world.jobs() == 50
    async with world.memory("two") as memory:
        await until(world.in_step, "the jobs' end")
        assert set(await world.indexed()) == set(stored)
        await _reconcile_finds_nothing(memory)


async def test_memory_killed_while_it_erases_never_brings_the_erased_back(world: World) -> None:
    """The erased is never recalled, although the index was not told; it is told in the end."""
    async with world.memory() as memory:
        erased, kept = await remember(memory, *numbered([1, 2]))
        await until(world.in_step, "indexing")
        world.network.partition()
        await memory.call(ALICE, "ForgetMemory", mpb.ForgetMemoryRequest(memory_id=erased))
        await until(lambda: _is_claimed(world), "the job's start")
        await memory.kill()
    assert set(await world.indexed()) == {erased, kept}
    world.network.heal()
    async with world.memory("two") as memory:
        answer = await recall(memory, "What is the locker code of shed w0001x?")
        assert numbered([1])[0] not in texts(answer)
        await until(world.in_step, "the erased point's end")
        assert set(await world.indexed()) == {kept}


async def test_a_dead_replicas_write_that_arrives_late_does_not_bring_the_erased_back(
    world: World,
) -> None:
    """What arrives after it was erased is never recalled, and reconcile takes it out again."""
    async with world.memory() as memory, world.memory("two", by=world.qdrant.url) as other:
        await until(lambda: _is_prepared(world), "the collection")
        (old,) = await remember(memory, *numbered([1]))
        await until(world.in_step, "indexing")
        await memory.kill()
        await other.call(ALICE, "ForgetMemory", mpb.ForgetMemoryRequest(memory_id=old))
        await until(world.in_step, "the erased point's end")
        await world.index.upsert([_point(old, numbered([1])[0])])
        answer = await recall(other, "What is the locker code of shed w0001x?")
        assert texts(answer) == []
        await other.command("reconcile")
        await until(world.in_step, "the late point's end")
        assert await world.indexed() == {}


async def test_two_memories_over_one_index_see_each_others_writes_at_once(world: World) -> None:
    """What one replica acknowledged, the other recalls with its next call, indexed or not."""
    async with world.memory() as one, world.memory("two") as two:
        for number in range(1, 21):
            writer, reader = (one, two) if number % 2 else (two, one)
            await remember(writer, *numbered([number]))
            answer = await recall(reader, f"What is the locker code of shed w{number:04d}x?")
            assert texts(answer)[:1] == numbered([number])
        await until(world.in_step, "indexing by both")


async def test_two_memories_of_which_one_is_killed_lose_nothing_and_the_other_ends_its_jobs(
    world: World,
) -> None:
    """A replica killed with jobs in its hands leaves them to the other."""
    async with world.memory() as one, world.memory("two", by=world.qdrant.url) as two:
        await until(lambda: _is_prepared(world), "the collection")
        world.network.partition()
        stored = await remember(one, *numbered(range(1, 201)))
        await one.kill()
        stored += await remember(two, *numbered(range(201, 301)))
        await until(world.in_step, "the killed one's jobs")
        assert set(await world.indexed()) == set(stored)


def _point(memory_id: str, text: str) -> IndexPoint:
    """What memory wrote for a text of Alice's."""
    now = datetime.now(UTC)
    return IndexPoint(
        tenant_id=ALICE.tenant_id,
        user_id=ALICE.user_id,
        memory_id=memory_id,
        version=1,
        conversation_id=None,
        seq=None,
        speaker="user",
        role="user",
        kind="fact",
        time=now,
        dense=embed(text).astype("<f2").tobytes(),
        sparse=document_vector(document_terms(text, now)),
    )


async def _is_prepared(world: World) -> bool:
    """Whether memory has made the collection and knows its life."""
    known = await world.tables.fetchval("SELECT generation FROM memory.index_state")
    try:
        return bool(known) and known == await world.index.generation()
    except AppError:
        return False


async def _is_claimed(world: World) -> bool:
    return bool(await world.tables.fetchval("SELECT count(*) FROM memory.outbox WHERE leased"))


async def _has_points(world: World, count: int) -> bool:
    return len(await world.indexed()) == count


async def _is_noted(world: World, count: int) -> bool:
    noted = "SELECT count(*) FROM memory.memories WHERE indexed_version = version"
    return bool(await world.tables.fetchval(noted) == count)


async def _reconcile_finds_nothing(memory: MemoryReplica) -> None:
    report = await memory.command("reconcile")
    for nothing in ("missing 0", "stale 0", "orphaned 0", "left over 0", "released 0"):
        assert nothing in report, report
