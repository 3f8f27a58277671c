"""Cases 1 and 2: a replica is killed, and nobody who uses the SDK sees an error."""

from __future__ import annotations

import asyncio

import pytest

import echomesh
from echomesh import Client
from tests.faults.load import assert_stored, chatting
from tests.faults.mesh import ReplicaMesh

SERVICES = ("auth", "embeddings", "memory", "models", "routing")
# Eleven processes start first, on however busy a machine.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]


@pytest.mark.parametrize("service", SERVICES)
async def test_kill_9_in_the_middle_of_a_call_is_no_error_and_loses_nothing(
    mesh: ReplicaMesh, client: Client, service: str
) -> None:
    """A kill -9 of any replica while calls run: the SDK's user gets an answer to each.

    What was acknowledged before is recalled after.
    """
    user = client.as_user(f"mid-{service}")
    told = f"The {service} passphrase is heron."
    kept = await user.remember(told)
    calls = [user.reply(f"Note {i}.", conversation_id=f"mid{i}", timeout_s=50) for i in range(8)]
    running = [asyncio.ensure_future(call) for call in calls]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    assert not all(task.done() for task in running)
    mesh.kill(service)
    await mesh.gone(service)
    for _, final in await asyncio.gather(*running):
        assert final.finish_reason == "stop"
    await mesh.restart(service)
    assert kept.id in [memory.id async for memory in user.memories()]


@pytest.mark.parametrize("service", SERVICES)
async def test_kill_9_of_one_of_two_replicas_under_chat_load_is_seen_by_nobody(
    mesh: ReplicaMesh, client: Client, service: str
) -> None:
    """0 client errors while either of the two replicas of a service is killed and comes back.

    Everything that was said to be stored is there.
    """
    async with chatting(client, prefix=f"two-{service}-") as load:
        for index in (0, 1):
            mesh.kill(service, index)
            await mesh.gone(service, index)
            await load.goes_on()
            await mesh.restart(service, index)
            await load.goes_on()
    load.assert_no_errors()
    await assert_stored(mesh, load.finals)


async def test_new_clients_sign_in_while_one_auth_replica_is_dead(
    mesh: ReplicaMesh, client: Client
) -> None:
    """Signing in fails over too: a key is exchanged by the replica that lives."""
    mesh.kill("auth")
    await mesh.gone("auth")
    for _ in range(4):
        async with mesh.client() as another:
            assert await another.index_status()


async def test_tokens_still_verify_and_login_says_unavailable_while_auth_is_away(
    mesh: ReplicaMesh, client: Client
) -> None:
    """With auth away: tokens still verify, login is UNAVAILABLE, and services can restart."""
    user = client.as_user("auth-away")
    await user.reply("I am here.")
    for index in (0, 1):
        mesh.kill("auth", index)
        await mesh.gone("auth", index)
    await mesh.restart("routing")
    await mesh.restart("memory")
    for _ in range(4):  # by both routing replicas, one of which has never met auth
        _, final = await user.reply("I am still here.")
        assert final.finish_reason == "stop"
    async with mesh.client(timeout_s=2) as another:
        with pytest.raises(echomesh.EchomeshError) as refused:
            await another.index_status()
    assert refused.value.code.name == "UNAVAILABLE"
