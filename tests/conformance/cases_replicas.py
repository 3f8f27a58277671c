"""Replicas that die, freeze and return under a client's calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.cases import case
from tests.conformance.cases_tokens import lasting_tokens
from tests.conformance.door import Door
from tests.conformance.sdk import Call, Person, SdkError
from tests.conformance.world import ENDLESS, WHOLE, Case

SLOW = {"tier": "standard", "conversation_id": "c"}


async def calls_at(doors: list[Door], method: str, count: int) -> Door:
    """The door that a call under way is at."""
    while True:
        for door in doors:
            if len(door.seen(method)) >= count:
                return door
        await asyncio.sleep(0.01)


async def under_way(user: Person, doors: list[Door]) -> tuple[Call, Door]:
    """A reply that has begun to come, and the replica that it comes from."""
    chat = user.begin("chat", text="Tell me a story.", **SLOW)
    await chat.until("text")
    return chat, await calls_at(doors, "Chat", 1)


async def rest_of(chat: Call) -> list[dict[str, Any]]:
    """The frames that are still to come."""
    return [frame async for frame in chat.frames()]


async def goes_on_elsewhere(it: Case, user: Person, chat: Call) -> None:
    """The reply begins again, is whole, and is the only one that is stored."""
    frames = await rest_of(chat)
    kinds = [frame["kind"] for frame in frames]
    void = len(kinds) - 1 - kinds[::-1].index("restart")
    text = "".join(f["text"] for f in frames[void:] if f["kind"] == "text")
    # Whether the model says it or a quotation does is the mesh's business, on a busy machine.
    assert kinds[-1] == "final"
    assert text
    assert not text.startswith("Once")
    found = await user.do("messages", conversation_id="c")
    assert [m["text"] for m in found] == ["Tell me a story.", text]


@case
async def calls_go_round_the_replicas(it: Case) -> None:
    """With tokens that need no renewing in between."""
    user, doors = await it.replicas()
    for door in doors:
        lasting_tokens(door)
    for _ in range(6):
        await user.do("memories")
    assert [len(door.seen("ListMemories")) for door in doors] == [3, 3]


@case
async def a_replica_that_died_is_not_noticed(it: Case) -> None:
    user, (dead, alive) = await it.replicas()
    await user.do("memories")
    await dead.kill()
    for _ in range(4):
        assert await user.do("memories") == []
    assert len(alive.seen("ListMemories")) >= 4


@case
async def a_replica_that_returns_is_used_again(it: Case) -> None:
    user, (first, second) = await it.replicas()
    await user.do("memories")
    await first.kill()
    for _ in range(2):
        await user.do("memories")
    await first.open()
    await second.kill()
    assert await user.do("memories") == []


@case
async def a_replica_that_dies_under_a_reply_does_not_end_it(it: Case) -> None:
    it.answers(ENDLESS)
    user, doors = await it.replicas()
    chat, door = await under_way(user, doors)
    it.answers(WHOLE)
    await door.kill()
    await goes_on_elsewhere(it, user, chat)


@case
async def a_replica_that_freezes_under_a_reply_does_not_end_it(it: Case) -> None:
    it.answers(ENDLESS)
    user, doors = await it.replicas()
    chat, door = await under_way(user, doors)
    it.answers(WHOLE)
    door.freeze()
    await goes_on_elsewhere(it, user, chat)


@case
async def a_replica_that_freezes_under_a_call_does_not_hold_it_up(it: Case) -> None:
    user, (frozen, well) = await it.replicas()
    await user.do("memories")
    frozen.freeze()
    for _ in range(3):
        assert (await user.do("recall", query="tea"))["hits"] == []
    assert len(well.seen("Recall")) == 3


@case
async def a_busy_replica_is_not_taken_for_a_frozen_one(it: Case) -> None:
    """A call that lasts is left alone while its replica's health answers."""
    user, door = await it.one_door()
    door.holds("Recall")
    with pytest.raises(SdkError) as late:
        await user.do("recall", query="tea", timeout_s=5)
    assert late.value.code == "DEADLINE_EXCEEDED"
    assert len(door.seen("Recall")) == 1


@case
async def a_mesh_that_is_away_for_a_moment_is_waited_for(it: Case) -> None:
    user, door = await it.one_door()
    await door.kill()
    call = user.begin("memories")
    await asyncio.sleep(1.0)
    await door.open()
    assert await call.result() == []
