"""PgBouncer in transaction mode, as in production: services share few server connections.

Unless a test says otherwise each role has one server connection, so that all its transactions
follow one another on it and whatever one leaves behind would be seen by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest
import pytest_asyncio

from services.memory.commands import migrate
from services.memory.config import MemorySettings
from services.memory.server import MIGRATIONS
from services.runtime.errors import AppError, Reason
from services.runtime.migrate import check_schema
from tests.support.memory_world import (
    ALICE,
    BOB,
    EVE,
    NOW,
    World,
    memory_world,
    message,
)
from tests.support.pgbouncer import Pooler
from tests.support.pooled import MakePooler, owner_id, pool_of, seen_by
from tests.support.waiting import PATIENCE_S, until


@pytest_asyncio.fixture
async def world(pooler: Pooler) -> AsyncIterator[World]:
    """Memory's parts over that database."""
    async with memory_world(pooler.database) as made:
        yield made


# Identities


async def test_pgbouncer_transactions_on_one_connection_see_their_own_user_only(
    pooler: Pooler, world: World
) -> None:
    """Interleaved over one server connection, each sees its own rows; without a user, none."""
    people = (ALICE, BOB, EVE)
    await asyncio.gather(*(world.say(owner, "mine alone") for owner in people))
    async with pool_of(pooler) as one, pool_of(pooler) as other:
        asked = [*people, None] * 8
        rows = await asyncio.gather(
            *(seen_by((one, other)[i // 4 % 2], owner) for i, owner in enumerate(asked))
        )
    assert len({row["pid"] for row in rows}) == 1
    for owner, row in zip(asked, rows, strict=True):
        if owner is None:
            assert (row["tenant"] or "", row["person"] or "", row["owners"]) == ("", "", None)
        else:
            assert (row["tenant"], row["person"]) == (owner.tenant_id, owner.user_id)
            assert row["owners"] == [owner_id(owner)]


async def test_pgbouncer_a_failed_transaction_leaves_no_identity_and_no_rows(
    pooler: Pooler, world: World
) -> None:
    """What ends in an error is rolled back, and the next on that connection is nobody again."""
    async with pool_of(pooler) as database:
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with database.tenant(ALICE) as connection:
                await connection.fetchval("select 1 / 0")
        with pytest.raises(AppError) as caught:
            await world.store.list_messages(ALICE, "nowhere", None, 10, False)
        after = await seen_by(database, None)
    assert caught.value.reason is Reason.NOT_FOUND
    assert (after["tenant"] or "", after["person"] or "", after["owners"]) == ("", "", None)


async def test_pgbouncer_a_cancelled_statement_frees_the_connection_for_others(
    pooler: Pooler, world: World
) -> None:
    """A caller that gives up ends its own statement only, and takes its identity with it.

    Left alone the statement would run for ten minutes, and nobody else would get the connection.
    """
    await world.say(BOB, "still here")
    async with (
        pool_of(pooler, command_timeout_s=600.0) as one,
        pool_of(pooler, command_timeout_s=PATIENCE_S) as other,
    ):

        async def sleep_as_alice() -> None:
            async with one.tenant(ALICE) as connection:
                await connection.execute("set local statement_timeout = 0")
                await connection.execute("select pg_sleep(600)")

        task = asyncio.create_task(sleep_as_alice())
        await _runs(pooler, "select pg_sleep(600)")
        waiting = [asyncio.create_task(seen_by(other, who)) for who in (BOB, None)]
        task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            as_bob, as_nobody = await asyncio.gather(*waiting)
    assert as_bob["owners"] == [owner_id(BOB)]
    assert as_nobody["owners"] is None
    with pytest.raises(asyncio.CancelledError):
        await task


async def _runs(pooler: Pooler, query: str) -> None:
    """Wait until Postgres runs this very statement."""
    connection = await asyncpg.connect(pooler.direct.admin_dsn)
    sql = "select count(*) from pg_stat_activity where state = 'active' and query = $1"
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await connection.fetchval(sql, query):
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


# Schema


async def test_pgbouncer_migrations_take_the_direct_address(make_pooler: MakePooler) -> None:
    """`migrate` works with both addresses set; the pooler would not even let the owner in."""
    pooler = await make_pooler("memory", migrate=False)
    settings = MemorySettings.load(
        {},
        database_url=pooler.database.app("memory"),
        database_direct_url=pooler.database.owner("memory"),
        jobs_database_url=pooler.database.jobs("memory"),
    )
    assert "0001" in await migrate(settings)
    assert "nothing" in await migrate(settings)
    await check_schema("memory", pooler.database.app("memory"), MIGRATIONS)
    async with memory_world(pooler.database) as world:
        await world.say(ALICE, "the schema is there")
        assert await world.settle() == 1


# When something is away or busy


async def test_pgbouncer_many_more_clients_than_connections_all_get_through(
    make_pooler: MakePooler,
) -> None:
    """Five replicas with full pools, 40 connections to two, finish eighty transactions.

    How long is too long to wait for a connection is another test's; this one is about all of them
    getting through, on a busy machine too.
    """
    pooler = await make_pooler("memory", pool_size=2)
    async with AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(pool_of(pooler, command_timeout_s=PATIENCE_S))
            for _ in range(5)
        ]
        calls = [(pools[n % 5], (ALICE, BOB, EVE)[n % 3]) for n in range(80)]
        async with asyncio.timeout(PATIENCE_S):
            rows = await asyncio.gather(*(seen_by(pool, owner) for pool, owner in calls))
    assert len({row["pid"] for row in rows}) <= 2
    assert [row["person"] for row in rows] == [owner.user_id for _, owner in calls]


async def test_pgbouncer_a_wait_for_a_connection_ends_in_unavailable_and_not_in_a_hang(
    pooler: Pooler,
) -> None:
    """While somebody holds the only connection others are told so in time; then all is well."""
    async with pool_of(pooler) as holder, pool_of(pooler, command_timeout_s=0.5) as other:

        async def person() -> str | None:
            with suppress(AppError):
                return str((await seen_by(other, BOB))["person"])
            return None

        async with holder.tenant(ALICE) as connection:
            await connection.execute("select 1")
            with pytest.raises(AppError) as caught:
                async with asyncio.timeout(PATIENCE_S):
                    await seen_by(other, BOB)
            assert await connection.fetchval("select current_setting('app.user_id')") == "alice"
        assert await until(person, "others are served") == "bob"
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_pgbouncer_a_broken_server_connection_is_unavailable_once(
    pooler: Pooler, world: World
) -> None:
    """Server connections that end are told in the usual way, and the next call has a new one."""
    async with pool_of(pooler) as database:
        with pytest.raises(AppError) as caught:
            async with database.tenant(ALICE) as connection:
                await _terminate(pooler, await connection.fetchval("select pg_backend_pid()"))
                await connection.fetchval("select 1")
        await _eventually_says(world, "after the break")
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def _terminate(pooler: Pooler, pid: int) -> None:
    connection = await asyncpg.connect(pooler.direct.admin_dsn)
    try:
        assert await connection.fetchval("select pg_terminate_backend($1, 5000)", pid)
    finally:
        await connection.close()


async def _eventually_says(world: World, text: str) -> None:
    """Repeat a write, under one id, until it is stored; anything but `unavailable` fails."""
    new = message(text, "one-id")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await world.store.append_messages(ALICE, "again", [new], NOW)
                break
            except AppError as error:
                assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
                await asyncio.sleep(0.05)
    listed = await world.store.list_messages(ALICE, "again", None, 10, False)
    assert [m.text for m in listed] == [text]


async def test_pgbouncer_may_end_and_come_back(pooler: Pooler, world: World) -> None:
    """While it is away calls are `unavailable`; with it back they work, with no restart of ours."""
    await world.say(ALICE, "before")
    pooler.stop()
    for call in (world.say(ALICE, "meanwhile"), world.jobs.claim(1, 5)):
        with pytest.raises(AppError) as caught:
            await call
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    await pooler.start()
    await _eventually_says(world, "after")
    assert await world.settle() == 2
