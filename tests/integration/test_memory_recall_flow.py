"""Recall over a real store: what is acknowledged is found, whatever is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from services.memory.index import IndexHit
from services.memory.model import MemoryChange
from services.memory.outbox import OutboxLimits, OutboxRunner
from services.memory.recall import MemoryFilter
from services.memory.recaller import RecallLimits
from services.memory.reconcile import Reconciler, rebuild
from services.runtime import tracing
from services.runtime.errors import AppError
from services.runtime.telemetry import IdTracer
from tests.support.memory_world import (
    ALICE,
    BOB,
    EVE,
    NOW,
    World,
    emptied_database,
    fact,
    memory_world,
    message,
)
from tests.support.postgres import PostgresServer

HISTORY = (
    "my dog Rex chews shoes",
    "the locker code is 4711",
    "I moved to Berlin last spring",
    "pasta tastes best with basil",
)


@pytest_asyncio.fixture
async def world(postgres: PostgresServer) -> AsyncIterator[World]:
    async with memory_world(await emptied_database(postgres)) as made:
        yield made


async def best(world: World, text: str = "what is the locker code?") -> str:
    return (await world.recall(ALICE, text)).hits[0].memory.text


async def test_memory_recall_finds_the_answer_with_context_and_reasons(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.settle()
    recalled = await world.recall(ALICE, "what is the locker code?")
    top = recalled.hits[0]
    assert top.memory.text == "the locker code is 4711"
    assert (HISTORY[0], HISTORY[2]) == (top.previous_text, top.next_text)
    assert top.reasons.keyword == 1.0
    assert (top.reasons.dense or 0) > 0
    assert list(recalled.degraded) == []


async def test_memory_recall_finds_what_was_acknowledged_before_it_is_indexed(
    world: World,
) -> None:
    await world.say(ALICE, *HISTORY)
    assert world.index.points == {}
    assert await best(world) == "the locker code is 4711"


async def test_memory_recall_misses_nothing_that_is_indexed_while_it_searches(
    world: World,
) -> None:
    """The index answers without a row and holds it a moment later, when the table is read."""
    await world.say(ALICE, *HISTORY)
    search = world.index.search_dense

    async def search_just_before(*args: Any) -> list[IndexHit]:
        found = await search(*args)
        await world.settle()
        return found

    world.index.search_dense = search_just_before  # type: ignore[method-assign]
    world.index.search_sparse = nothing_yet  # type: ignore[method-assign]
    assert await best(world) == "the locker code is 4711"


async def nothing_yet(*_: Any) -> list[IndexHit]:
    return []


async def test_memory_recall_without_embeddings_is_by_keyword_and_says_so(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.settle()
    world.embedder.away = True
    recalled = await world.recall(ALICE, "what is the locker code?")
    assert recalled.hits[0].memory.text == "the locker code is 4711"
    assert list(recalled.degraded) == ["embeddings"]


async def test_memory_recall_without_the_index_reads_postgres_and_says_so(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.settle()
    world.index.away = True
    recalled = await world.recall(ALICE, "what is the locker code?")
    assert recalled.hits[0].memory.text == "the locker code is 4711"
    assert list(recalled.degraded) == ["index"]


async def test_memory_recall_by_keyword_alone_is_no_degradation(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.settle()
    recalled = await world.recall(ALICE, "locker code", keyword_only=True)
    assert recalled.hits[0].memory.text == "the locker code is 4711"
    assert list(recalled.degraded) == []


async def test_memory_recall_never_shows_another_users_memories(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.settle()
    for other in (BOB, EVE):
        for away in (False, True):
            world.index.away = away
            assert list((await world.recall(other, "locker code")).hits) == []


async def test_memory_recall_leaves_excluded_messages_out(world: World) -> None:
    ids = await world.say(ALICE, "what is the locker code?", "the locker code is 4711")
    excluded = frozenset({str(ids[0])})
    recalled = await world.recall(ALICE, "what is the locker code?", excluded=excluded)
    assert [ids[1]] == [hit.memory.memory_id for hit in recalled.hits]


async def test_memory_recall_is_narrowed_by_every_filter(world: World) -> None:
    await world.say(ALICE, "locker code one", conversation="c1")
    said = NOW + timedelta(days=9)
    await world.store.append_messages(
        ALICE,
        "c2",
        [message("locker code two", speaker="Al", said_at=said, metadata={"k": "v"})],
        NOW,
    )
    await world.store.remember(ALICE, [fact("locker code three")])
    for settled in (False, True):
        if settled:
            await world.settle()
        for narrowed, expected in (
            (MemoryFilter(conversation_id="c1"), ["locker code one"]),
            (MemoryFilter(speaker="Al"), ["locker code two"]),
            (MemoryFilter(since=NOW + timedelta(days=1)), ["locker code two"]),
            (MemoryFilter(kinds=frozenset({"fact"})), ["locker code three"]),
            (MemoryFilter(metadata={"k": "v"}), ["locker code two"]),
            (MemoryFilter(until=NOW), []),
        ):
            recalled = await world.recall(ALICE, "locker code", narrowed=narrowed)
            assert expected == [hit.memory.text for hit in recalled.hits]


async def test_memory_recall_prefers_the_newer_when_recency_counts(world: World) -> None:
    old = message("my locker code is one", said_at=NOW - timedelta(days=300))
    new = message("my locker code is two", said_at=NOW - timedelta(days=1))
    await world.store.append_messages(ALICE, "c1", [old], NOW)
    await world.store.append_messages(ALICE, "c2", [new], NOW)
    recalled = await world.recall(ALICE, "locker code", recency_weight=1.0)
    assert recalled.hits[0].memory.text == "my locker code is two"


async def test_memory_recall_says_when_too_many_rows_are_pending(
    postgres: PostgresServer,
) -> None:
    limits = RecallLimits(pending_rows=3)
    async with memory_world(await emptied_database(postgres), limits) as world:
        await world.say(ALICE, *HISTORY, "one more", "and another")
        recalled = await world.recall(ALICE, "which dog chews?")
        assert HISTORY[0] == recalled.hits[0].memory.text
        assert list(recalled.degraded) == ["pending"]


async def test_memory_hit_without_a_live_row_is_dropped_and_repaired(world: World) -> None:
    memory_id, _ = await world.say(ALICE, "the locker code is 4711", "something else")
    await world.settle()
    key = (ALICE.tenant_id, ALICE.user_id, str(memory_id))
    point = world.index.points[key]
    await world.store.forget_memory(ALICE, memory_id, NOW)
    await world.settle()
    world.index.points[key] = point  # as a restored index would
    recalled = await world.recall(ALICE, "locker code")
    assert [hit.memory.text for hit in recalled.hits] == ["something else"]
    await world.settle()
    assert key not in world.index.points


async def test_memory_hit_of_another_version_is_recalled_as_the_table_has_it_and_repaired(
    world: World,
) -> None:
    """A late write of a frozen replica may leave such a point; what is acknowledged is recalled."""
    [memory_id] = await world.say(ALICE, "the locker code is 4711")
    await world.settle()
    key = (ALICE.tenant_id, ALICE.user_id, str(memory_id))
    world.index.points[key] = replace(world.index.points[key], version=7)
    assert await best(world) == "the locker code is 4711"
    assert await best(world) == "the locker code is 4711"
    await world.settle()
    assert world.index.points[key].version == 1


async def test_memory_outbox_waits_for_what_is_away_and_uses_up_no_attempt(
    world: World,
) -> None:
    await world.say(ALICE, *HISTORY)
    world.index.away = True
    for _ in range(5):
        with pytest.raises(AppError):
            await world.runner.run_once()
    world.index.away = False
    assert len(world.embedder.embedded) == 4
    assert await world.settle() == 4
    assert len(world.index.points) == 4
    assert len(world.embedder.embedded) == 4, "vectors were kept: nothing is embedded twice"
    assert await world.jobs.lag() == (0, 0, 0.0)


async def test_memory_outbox_fails_a_bad_row_alone_and_holds_it(world: World) -> None:
    ids = await world.say(ALICE, *HISTORY)
    good = world.keeper.work

    async def work(jobs: object) -> None:
        if ids[1] in [job.memory_id for job in jobs]:  # type: ignore[attr-defined]
            raise ValueError("poison")
        await good(jobs)  # type: ignore[arg-type]

    runner = OutboxRunner(world.jobs, work, OutboxLimits(attempts=1))
    await runner.run_once()
    assert len(world.index.points) == 3
    waiting, held, _ = await world.jobs.lag()
    assert (waiting, held) == (0, 1)
    assert (await Reconciler(world.jobs, world.index).reconcile()).released == 1
    await world.settle()
    assert len(world.index.points) == 4


async def test_memory_changed_while_its_job_runs_is_indexed_again_by_one_runner_at_a_time(
    world: World,
) -> None:
    [memory_id] = await world.say(ALICE, "code one")
    jobs = await world.jobs.claim(10, 15.0)
    change = MemoryChange("u1", b"h", memory_id, 0, NOW, text="code two")
    await world.store.update_memory(ALICE, change)
    assert await world.settle() == 0, "the first runner still has it"
    await world.jobs.done(jobs)
    assert await world.settle() == 1
    assert next(iter(world.index.points.values())).version == 2
    assert await world.store.index_lag(ALICE) == (1, 0)


async def test_memory_killed_runners_jobs_are_due_again(world: World) -> None:
    await world.say(ALICE, "code one")
    assert len(await world.jobs.claim(10, 2.0)) == 1
    assert await world.jobs.claim(10, 15.0) == []
    async with asyncio.timeout(60):
        while not await world.settle():
            await asyncio.sleep(0.01)
    assert len(world.index.points) == 1


async def test_memory_job_that_is_queued_again_in_the_background_keeps_the_call_that_queued_it(
    world: World,
) -> None:
    """The first check of a fresh mesh queues everything, and the first message is there already."""
    with IdTracer().start_as_current_span("a call"):
        await world.say(ALICE, "code one")
        queued_by = tracing.traceparent()
    await world.keeper.check()
    [job] = await world.jobs.claim(10, 15.0)
    assert (job.generation, job.traceparent) == (2, queued_by)


async def test_memory_new_life_of_the_index_is_filled_without_embedding(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.say(BOB, "Bob's own")
    await world.settle()
    await world.keeper.check()
    await world.settle()
    embedded = len(world.embedder.embedded)
    world.index.points, world.index.life = {}, "life-2"
    await world.keeper.check()
    await world.settle()
    assert len(world.index.points) == 5
    assert embedded == len(world.embedder.embedded)
    await world.keeper.check()
    assert await world.settle() == 0, "the same life is left alone"


async def test_memory_new_model_embeds_everything_again(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.keeper.check()
    await world.settle()
    world.embedder.name = "fake-2"
    await world.keeper.check()
    await world.settle()
    assert len(world.embedder.embedded) == 8


async def test_memory_reconcile_finds_missing_stale_and_orphaned_points(world: World) -> None:
    ids = await world.say(ALICE, *HISTORY)
    await world.settle()
    points = world.index.points
    keys = [(ALICE.tenant_id, ALICE.user_id, str(i)) for i in ids]
    orphan = str(UUID(int=5))
    points[ALICE.tenant_id, ALICE.user_id, orphan] = replace(points[keys[0]], memory_id=orphan)
    points[keys[1]] = replace(points[keys[1]], version=9)
    del points[keys[2]]
    await world.jobs.ask_reconcile()
    assert (await world.jobs.state()).reconcile_wanted
    report = await Reconciler(world.jobs, world.index).reconcile()
    assert (report.memories, report.missing, report.stale, report.orphaned) == (4, 1, 1, 1)
    await world.settle()
    assert set(keys) == set(points)
    assert {1} == {point.version for point in points.values()}
    assert not (await world.jobs.state()).reconcile_wanted
    assert report.as_dict() == await world.jobs.report()


async def test_memory_rebuild_queues_every_live_memory(world: World) -> None:
    await world.say(ALICE, *HISTORY)
    await world.settle()
    world.index.points.clear()
    assert await rebuild(world.jobs) == 4
    await world.settle()
    assert len(world.index.points) == 4
