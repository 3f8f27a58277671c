"""Case 3: a part is stopped but not dead (SIGSTOP): it keeps its connections, answers nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from echomesh import Client, NewMessage
from tests.faults.load import chatting
from tests.faults.mesh import ReplicaMesh
from tests.support.qdrant_server import QdrantProcess
from tests.support.waiting import until

SERVICES = ("auth", "embeddings", "memory", "models", "routing")
# How often a process is stopped until it is caught inside a transaction.
CATCHES = 60
# Eleven processes start first, on however busy a machine.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]

# Backends of memory's request handlers that are inside a transaction and wait for their client.
_HELD = """
    select pid, xact_start from pg_stat_activity
    where application_name = 'memory' and state like 'idle in transaction%'
"""


@pytest.mark.parametrize("service", SERVICES)
async def test_a_frozen_replica_of_a_service_under_chat_load_is_seen_by_nobody(
    mesh: ReplicaMesh, client: Client, service: str
) -> None:
    """0 client errors while one of two replicas is stopped, and when it goes on.

    It is soon passed over: replies then lack nothing, although it is still stopped.
    """
    async with chatting(client, prefix=f"ice-{service}-") as load:
        mesh.freeze(service)
        await load.goes_on()
        await load.is_whole()
        mesh.thaw(service)
        await load.goes_on()
    load.assert_no_errors()


@pytest.mark.parametrize("service", ["auth", "memory", "routing"])
async def test_unary_calls_of_the_sdk_leave_a_frozen_replica(
    mesh: ReplicaMesh, client: Client, service: str
) -> None:
    """A client that comes anew gets its token and its answers in spite of a stopped replica."""
    mesh.freeze(service)
    for _ in range(2):
        async with mesh.client() as another:
            user = another.as_user(f"unary-{service}")
            kept = await user.remember("I keep bees.")
            assert kept.id in [memory.id async for memory in user.memories()]


async def test_a_frozen_index_is_named_as_degraded_and_recall_goes_on_by_words(
    mesh: ReplicaMesh, client: Client, qdrant: QdrantProcess
) -> None:
    """Index away: recall by keyword, `degraded`; what was acknowledged is still recalled.

    The index catches up when it returns.
    """
    user = client.as_user("index-ice")
    qdrant.freeze()
    try:
        await user.remember("The attic key hangs behind the clock.")
        found = await user.recall("Where does the attic key hang?")
        assert "index" in found.degraded
        assert "clock" in found.hits[0].memory.text
        _, final = await user.reply("Where does the attic key hang?")
        assert "index" in final.degraded
    finally:
        qdrant.thaw()

    async def caught_up() -> bool:
        result = await user.recall("Where does the attic key hang?")
        return (await user.index_status())[1] == 0 and not result.degraded

    await until(caught_up, "the index has what was told meanwhile")


async def test_a_frozen_postmaster_stops_no_connection_that_stands(
    mesh: ReplicaMesh, client: Client
) -> None:
    """New connections to Postgres hang; whoever chats sees no error, and nothing is left after."""
    async with chatting(client, prefix="postmaster-") as load:
        postmaster = mesh.postgres_process()
        assert postmaster is not None
        postmaster.suspend()
        try:
            await load.goes_on()
        finally:
            postmaster.resume()
        await load.goes_on()
    load.assert_no_errors()
    await stores_again(client)


async def test_a_frozen_postgres_backend_costs_its_own_statement_only(
    mesh: ReplicaMesh, client: Client
) -> None:
    """Whoever gets the connection to a stopped backend is answered without it, and not again."""
    async with chatting(client, prefix="backend-") as load:
        rows = await mesh.sql(
            "select pid from pg_stat_activity where application_name = 'memory' and state = 'idle'"
            " order by state_change desc limit 2"
        )
        assert rows
        for row in rows:
            os.kill(row["pid"], signal.SIGSTOP)
        try:
            await load.goes_on(24)
        finally:
            for row in rows:
                os.kill(row["pid"], signal.SIGCONT)
        await load.goes_on()
    load.assert_no_errors()
    await stores_again(client)


async def stores_again(client: Client) -> None:
    """Replies are stored, as they are in a healthy mesh."""

    async def stored() -> bool:
        _, final = await client.as_user("after").reply("Is all well?")
        return (final.message_stored, final.reply_stored) == ("stored", "stored")

    await until(stored, "replies are stored again")


async def test_memory_frozen_inside_a_transaction_frees_its_locks(
    mesh: ReplicaMesh, client: Client
) -> None:
    """Writers to the very conversation whose row a stopped replica has locked get through.

    Postgres ends the transaction (idle_in_transaction_session_timeout), and the SDK's retries
    outlast it: 0 client errors, and every acknowledged message is there once.
    """
    user = client.as_user("locked")
    async with writing(user) as acknowledged:
        held = await catch_inside_transaction(mesh)
        count = len(acknowledged)

        async def freed() -> bool:
            now = {(row["pid"], row["xact_start"]) for row in await mesh.sql(_HELD)}
            return not held & now

        await until(freed, "the frozen replica's transactions are ended")

        async def goes_on() -> bool:
            return len(acknowledged) >= count + 8

        await until(goes_on, "writers get through")
        mesh.thaw("memory")
    stored = [message.text async for message in user.messages("shared")]
    assert sorted(stored) == sorted(acknowledged)


@asynccontextmanager
async def writing(user: Client) -> AsyncIterator[list[str]]:
    """Eight writers to one conversation; what was acknowledged. Any error fails the test."""
    acknowledged: list[str] = []
    leaving = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not leaving.is_set():
            text = f"{writer}/{number}"
            message = NewMessage(
                request_id=text, role="user", speaker="Ann", text=text, time=datetime.now(UTC)
            )
            await user.import_messages("shared", [message])
            acknowledged.append(text)
            number += 1

    async with asyncio.TaskGroup() as group:
        for writer in range(8):
            group.create_task(write(writer))
        try:
            yield acknowledged
        finally:
            leaving.set()


async def catch_inside_transaction(mesh: ReplicaMesh) -> set[tuple[int, datetime]]:
    """Stop memory's first replica until it holds a transaction open; which (backend, start)."""
    for _ in range(CATCHES):
        mesh.freeze("memory")
        seen = {(row["pid"], row["xact_start"]) for row in await mesh.sql(_HELD)}
        for _ in range(4):  # the other replica's transactions move on
            seen &= {(row["pid"], row["xact_start"]) for row in await mesh.sql(_HELD)}
        if seen:
            return seen
        mesh.thaw("memory")
        await asyncio.sleep(0.05)
    raise AssertionError("memory was never caught inside a transaction")
