"""Case 4: SIGTERM under load. What runs ends in peace, what comes goes to the other replica."""

from __future__ import annotations

import asyncio

import pytest

import echomesh
from echomesh import Client
from tests.faults.load import assert_stored, chatting
from tests.faults.mesh import ReplicaMesh

SERVICES = ("auth", "embeddings", "memory", "models", "routing")
WAIT_S = 40.0
# Eleven processes start first, on however busy a machine.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]


@pytest.mark.parametrize("service", SERVICES)
async def test_sigterm_of_one_of_two_replicas_under_chat_load_is_seen_by_nobody(
    mesh: ReplicaMesh, client: Client, service: str
) -> None:
    """0 client errors while a replica drains and ends; it ends with status 0, and is complete.

    Unlike after kill -9 nothing may be left to chance: every message and reply is stored.
    """
    async with chatting(client, prefix=f"term-{service}-") as load:
        told = len(load.finals)
        assert await mesh.terminate(service) == 0
        await load.goes_on()
    load.assert_no_errors()
    fates = {(f.message_stored, f.reply_stored) for f in load.finals[told:]}
    assert fates == {("stored", "stored")}
    await assert_stored(mesh, load.finals)


async def test_a_write_under_way_is_acknowledged_by_a_memory_that_ends(
    mesh: ReplicaMesh, client: Client
) -> None:
    """SIGTERM between request and answer: the SDK sees neither an error nor a loss."""
    user = client.as_user("term-writer")
    writes = [asyncio.ensure_future(user.remember(f"Fact {i} is {i * i}.")) for i in range(40)]
    await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
    ending = asyncio.ensure_future(mesh.terminate("memory"))
    kept = {memory.id for memory in await asyncio.gather(*writes)}
    assert await ending == 0
    assert kept == {memory.id async for memory in user.memories()}


async def test_the_sdk_signs_in_while_both_auth_replicas_are_replaced_one_by_one(
    mesh: ReplicaMesh, client: Client
) -> None:
    """A rolling restart of auth is seen by nobody who signs in meanwhile."""
    leaving, signed_in = asyncio.Event(), 0

    async def sign_in() -> None:
        nonlocal signed_in
        while not leaving.is_set():
            async with mesh.client() as another:
                assert await another.index_status()
            signed_in += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(sign_in())
        for index in (0, 1):
            assert await mesh.terminate("auth", index) == 0
            await mesh.restart("auth", index)
        leaving.set()
    assert signed_in > 0


async def test_a_reply_under_way_ends_on_the_routing_replica_that_drains(
    mesh: ReplicaMesh, client: Client
) -> None:
    """A stream that has begun is not begun again because of SIGTERM: no restart frame."""
    kinds: list[type[echomesh.Frame]] = []
    endings = []
    for i in range(6):  # both replicas get some
        async for frame in client.as_user("term-stream").chat(f"Note number {i}."):
            kinds.append(type(frame))
            if isinstance(frame, echomesh.Accepted) and not endings:
                endings = [asyncio.ensure_future(mesh.terminate("routing"))]
    assert echomesh.Restart not in kinds
    assert kinds.count(echomesh.Final) == 6
    assert await endings[0] == 0
