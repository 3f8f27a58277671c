"""PgBouncer in transaction mode, as in production: services share few server connections.

Unless a test says otherwise each role has one server connection, so that all its transactions
follow one another on it and whatever one leaves behind would be seen by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
import pytest_asyncio

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import auth_pb2 as auth
from services.auth.pruning import prune
from services.memory.commands import migrate
from services.memory.config import MemorySettings
from services.memory.listening import listen
from services.memory.model import Owner
from services.memory.recall import MemoryFilter
from services.memory.server import MIGRATIONS
from services.runtime.errors import AppError, Reason
from services.runtime.migrate import check_schema
from services.runtime.postgres import Database
from tests.support.auth_world import TENANT, AuthWorld, auth_world
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
from tests.support.pgbouncer import Pooler, find_pgbouncer, running_pooler
from tests.support.postgres import FreshDatabase

PASSWORD = "correct horse battery"

EVERYTHING = MemoryFilter()

SEEN = (
    "select pg_backend_pid() as pid, current_setting('app.tenant_id', true) as tenant, "
    "current_setting('app.user_id', true) as person, "
    "(select array_agg(distinct tenant_id || '/' || user_id) from memory.messages) as owners"
)
"""Where a transaction runs, as whom, and whose messages it can see at all."""


class MakePooler(Protocol):
    """Puts PgBouncer in front of a fresh database of the named services."""

    async def __call__(self, *names: str, pool_size: int = 1, migrate: bool = True) -> Pooler:
        """Start one; it ends with the test."""
        ...


@pytest.fixture
def pgbouncer_program() -> str:
    """The program, or the reason why nothing is tested here."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    return program


@pytest_asyncio.fixture
async def make_pooler(
    pgbouncer_program: str, fresh_database: FreshDatabase
) -> AsyncIterator[MakePooler]:
    """A maker of databases behind a pooler."""
    async with AsyncExitStack() as stack:

        async def make(*names: str, pool_size: int = 1, migrate: bool = True) -> Pooler:
            database = await fresh_database(*names, migrate=migrate)
            running = running_pooler(pgbouncer_program, database, pool_size)
            return await stack.enter_async_context(running)

        yield make


@pytest_asyncio.fixture
async def pooler(make_pooler: MakePooler) -> Pooler:
    """Memory's database, one server connection for each role."""
    return await make_pooler("memory")


@pytest_asyncio.fixture
async def world(pooler: Pooler) -> AsyncIterator[World]:
    """Memory's parts over that database."""
    async with memory_world(pooler.database) as made:
        yield made


@asynccontextmanager
async def pool_of(pooler: Pooler, **options: float) -> AsyncIterator[Database]:
    """Another client of the pooler, as memory's app role."""
    database = Database(pooler.database.app("memory"), name="other", **options)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.close()


def owner_id(owner: Owner) -> str:
    return f"{owner.tenant_id}/{owner.user_id}"


async def seen_by(database: Database, owner: Owner | None) -> asyncpg.Record:
    """What a transaction of `owner`, or of nobody, sees."""
    scope = database.transaction() if owner is None else database.tenant(owner)
    async with scope as connection:
        return await connection.fetchrow(SEEN)


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
    """A caller that gives up ends its own statement only, and takes its identity with it."""
    await world.say(BOB, "still here")
    async with pool_of(pooler) as one, pool_of(pooler) as other:
        sleeping = asyncio.Event()

        async def sleep_as_alice() -> None:
            async with one.tenant(ALICE) as connection:
                sleeping.set()
                await connection.execute("select pg_sleep(4)")

        task = asyncio.create_task(sleep_as_alice())
        await sleeping.wait()
        waiting = [asyncio.create_task(seen_by(other, who)) for who in (BOB, None)]
        task.cancel()
        async with asyncio.timeout(3):
            as_bob, as_nobody = await asyncio.gather(*waiting)
    assert as_bob["owners"] == [owner_id(BOB)]
    assert as_nobody["owners"] is None
    with pytest.raises(asyncio.CancelledError):
        await task


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


async def test_pgbouncer_many_more_clients_than_connections_all_get_through(
    make_pooler: MakePooler,
) -> None:
    """Five replicas with full pools, 40 connections to two, finish eighty transactions."""
    pooler = await make_pooler("memory", pool_size=2)
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(pool_of(pooler)) for _ in range(5)]
        calls = [(pools[n % 5], (ALICE, BOB, EVE)[n % 3]) for n in range(80)]
        async with asyncio.timeout(30):
            rows = await asyncio.gather(*(seen_by(pool, owner) for pool, owner in calls))
    assert len({row["pid"] for row in rows}) <= 2
    assert [row["person"] for row in rows] == [owner.user_id for _, owner in calls]


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
        async with asyncio.timeout(10):
            await woken.wait()  # it looks once when it begins to listen
            woken.clear()
            await world.say(ALICE, "wake up")
            await woken.wait()
        assert await world.settle() == 1
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


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


async def test_pgbouncer_a_wait_for_a_connection_ends_in_unavailable_and_not_in_a_hang(
    pooler: Pooler,
) -> None:
    """While somebody holds the only connection others are told so in time; then all is well."""
    async with pool_of(pooler) as holder, pool_of(pooler, command_timeout_s=0.5) as other:
        async with holder.tenant(ALICE) as connection:
            await connection.execute("select 1")
            with pytest.raises(AppError) as caught:
                async with asyncio.timeout(5):
                    await seen_by(other, BOB)
            assert await connection.fetchval("select current_setting('app.user_id')") == "alice"
        assert (await seen_by(other, BOB))["person"] == "bob"
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
    async with asyncio.timeout(10):
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


# Auth


@pytest_asyncio.fixture
async def auth_service(make_pooler: MakePooler, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    """Auth over gRPC with one pooled connection for each role."""
    pooler = await make_pooler("auth")
    async with auth_world(tmp_path, pooler.database) as made:
        yield made


async def _user(world: AuthWorld, username: str) -> auth.LoginRequest:
    """Make a user who can sign in."""
    request = admin.CreateUserRequest(request_id=username, username=username, password=PASSWORD)
    await world.call("CreateUser", request, await world.token())
    return auth.LoginRequest(tenant=TENANT, username=username, password=PASSWORD)


async def test_pgbouncer_sign_ins_renewals_and_sign_outs_at_once(auth_service: AuthWorld) -> None:
    """Passwords, keys, applications' users and renewals all work over one server connection."""
    world = auth_service
    logins = [await _user(world, f"user-{n}") for n in range(4)]
    app = await world.token("app_key")
    exchanges = [auth.ExchangeTokenRequest(external_user_id=f"external-{n % 3}") for n in range(6)]
    answers = await asyncio.gather(
        *(world.call("Login", login) for login in logins),
        *(world.call("ExchangeToken", each, app) for each in exchanges),
        *(world.call("ExchangeApiKey", _key(world)) for _ in range(6)),
    )
    assert len({answer.user_id for answer in answers[4:10]}) == 3
    renewed = await asyncio.gather(
        *(world.call("Refresh", _refresh(a.tokens.refresh_token, "r1")) for a in answers)
    )
    for answer in renewed:
        await world.call("WhoAmI", auth.WhoAmIRequest(), answer.tokens.access_token)
    last = renewed[0].tokens.refresh_token
    await world.call("Logout", auth.LogoutRequest(refresh_token=last))
    gone = await world.refused("Refresh", _refresh(last, "r2"))
    assert gone.reason is Reason.TOKEN_INVALID


def _key(world: AuthWorld) -> auth.ExchangeApiKeyRequest:
    return auth.ExchangeApiKeyRequest(api_key=world.credentials["api_key"])


def _refresh(token: str, request_id: str) -> auth.RefreshRequest:
    return auth.RefreshRequest(refresh_token=token, request_id=request_id)


async def test_pgbouncer_guesses_and_repeated_renewals_stay_exact(auth_service: AuthWorld) -> None:
    """Locks live inside their transaction: ten tries of twenty, and one family of tokens."""
    world = auth_service
    login = await _user(world, "alice")
    tokens = (await world.call("Login", login)).tokens
    both = await asyncio.gather(
        *(world.call("Refresh", _refresh(tokens.refresh_token, "r1")) for _ in range(2))
    )
    await world.call("Refresh", _refresh(both[0].tokens.refresh_token, "r2"))
    guesses = [auth.LoginRequest(tenant=TENANT, username="alice", password=f"guess {n:04}")
               for n in range(20)]  # fmt: skip
    errors = await asyncio.gather(*(world.refused("Login", guess) for guess in guesses))
    reasons = [error.reason for error in errors]
    assert reasons.count(Reason.CREDENTIALS_INVALID) == 10
    assert reasons.count(Reason.LOGIN_RATE_LIMITED) == 10


async def test_pgbouncer_auth_settings_end_with_their_transaction(auth_service: AuthWorld) -> None:
    """After lookups by tenant, name and key, the next transaction on the connection sees none."""
    world = auth_service
    await asyncio.gather(*(world.sign_in() for _ in range(4)))
    await world.parts.store.tenant_named(TENANT)
    database = Database(world.database.app("auth"), name="nobody")
    try:
        async with database.transaction() as connection:
            for table in ("users", "api_keys", "tenants", "refresh_families", "refresh_tokens"):
                sql = f"select count(*) from auth.{table}"
                assert await connection.fetchval(sql) == 0, table
    finally:
        await database.close()


async def test_pgbouncer_pruning_walks_tenants_over_the_jobs_address(
    auth_service: AuthWorld,
) -> None:
    """Expired sign-ins are forgotten, those in use stay."""
    world = auth_service
    old = await world.sign_in()
    world.clock.advance(timedelta(days=100).total_seconds())
    kept = await world.sign_in()
    jobs = Database(world.database.jobs("auth"), name="prune", max_size=1)
    try:
        await prune(jobs, world.clock)
    finally:
        await jobs.close()
    gone = await world.refused("Refresh", _refresh(old.refresh_token, "r1"))
    await world.call("Refresh", _refresh(kept.refresh_token, "r2"))
    assert gone.reason is Reason.TOKEN_INVALID
