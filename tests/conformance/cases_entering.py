"""Signing in and finding the mesh."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.cases import case
from tests.conformance.sdk import SdkError
from tests.conformance.world import Case


@case
async def a_key_and_an_address_are_enough(it: Case) -> None:
    """A new end user has nothing yet."""
    assert await (await it.user()).do("conversations") == []


@case
async def a_wrong_key_is_refused_at_once(it: Case) -> None:
    _, door = await it.one_door()
    before = len(door.seen("ExchangeApiKey"))
    stranger = await it.connect(door.address, api_key="em_wrong", endpoints={"auth": door.address})
    with pytest.raises(SdkError) as refused:
        await stranger.do("conversations")
    assert (refused.value.code, refused.value.reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
    assert len(door.seen("ExchangeApiKey")) - before == 1


@case
async def the_mesh_tells_where_its_services_are(it: Case) -> None:
    found = await (await it.client()).do("endpoints")
    assert found["echomesh.auth.v1.AuthService"] == it.world.upstreams["auth"]
    assert found["echomesh.memory.v1.MemoryService"] == it.world.upstreams["memory"]
    assert found["echomesh.routing.v1.ChatService"] == it.world.upstreams["routing"]


@case
async def two_users_of_one_client_see_only_their_own(it: Case) -> None:
    alice, bob = await it.user(), await it.user()
    kept = await alice.do("remember", text="The safe is behind the painting.")
    assert [m["id"] for m in await alice.do("memories")] == [kept["id"]]
    assert await bob.do("memories") == []
    assert (await bob.do("recall", query="safe painting"))["hits"] == []


@case
async def one_sign_in_serves_all_calls_of_a_client(it: Case) -> None:
    user, door = await it.one_door()
    await asyncio.gather(*(user.do("memories") for _ in range(5)))
    assert len(door.seen("ExchangeApiKey")) == 1
    assert len(door.seen("ExchangeToken")) == 1


@case
async def an_address_where_nobody_listens_is_passed_over(it: Case) -> None:
    _, (gone, door) = await it.replicas()
    await gone.kill()
    address = f"{gone.address},{door.address}"
    client = await it.connect(address, endpoints=dict.fromkeys(it.world.upstreams, address))
    user = await it.user(client)
    for _ in range(4):
        assert await user.do("conversations") == []


@case
async def closing_a_client_ends_its_calls_and_opens_nothing_again(it: Case) -> None:
    _, door = await it.one_door()
    endpoints = dict.fromkeys(it.world.upstreams, door.address)
    client = await it.connect(door.address, endpoints=endpoints)
    door.holds("Recall")
    call = client.begin("recall", query="tea", timeout_s=it.long_s)
    while not door.seen("Recall"):
        await asyncio.sleep(0.01)
    await client.do("close")
    with pytest.raises(SdkError) as ended:
        await call.result()
    await it.until(door.seen("Recall")[0].cancelled, "the mesh was told")
    with pytest.raises(SdkError) as late:
        await client.do("memories")
    assert (ended.value.code, late.value.code) == ("CANCELLED", "CANCELLED")
    assert (len(door.seen("Recall")), door.seen("ListMemories")) == (1, [])
