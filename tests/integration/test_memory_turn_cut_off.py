"""A reply that was cut off is no end of its turn, also for who asks while it is being stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio

from services.memory.model import BegunTurn
from services.memory.postgres import turns
from tests.support.memory_world import (
    ALICE,
    World,
    begin,
    complete,
    emptied_database,
    memory_world,
)
from tests.support.postgres import PostgresServer

CUT_OFF = replace(complete("t", 1, "On"), finish_reason="cancelled")
_WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest_asyncio.fixture
async def world(postgres: PostgresServer) -> AsyncIterator[World]:
    async with memory_world(await emptied_database(postgres)) as made:
        yield made


async def test_a_turn_begun_again_while_its_cut_off_reply_is_stored_is_run_again(
    world: World,
) -> None:
    await world.store.begin_turn(ALICE, begin("t"))

    async def begin_again() -> BegunTurn:
        async with world.store._db.tenant(ALICE) as conn:
            return await turns._begin_again(conn, ALICE, begin("t"))

    async with world.store._db.tenant(ALICE) as conn:
        await turns.complete(conn, ALICE, CUT_OFF)
        again = asyncio.create_task(begin_again())
        while not await conn.fetchval(_WAITS):
            await asyncio.sleep(0.01)
    begun = await again
    assert (begun.reply, begun.epoch) == (None, 2)


async def test_a_whole_reply_that_comes_as_a_cut_off_one_is_stored_takes_its_place(
    world: World,
) -> None:
    await world.store.begin_turn(ALICE, begin("t"))
    async with world.store._db.tenant(ALICE) as conn:
        await turns.complete(conn, ALICE, CUT_OFF)
        whole = asyncio.create_task(world.store.complete_turn(ALICE, complete("t", 1, "Once")))
        while not await conn.fetchval(_WAITS):
            await asyncio.sleep(0.01)
    assert (await whole).text == "Once"
