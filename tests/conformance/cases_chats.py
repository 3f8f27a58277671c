"""A message and its reply."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from echomesh.routing.v1 import chat_pb2
from tests.conformance.cases import case
from tests.conformance.door import Seen
from tests.conformance.sdk import Person, SdkError
from tests.conformance.world import ENDLESS, WHOLE, Case, instructions_of

MODEL = "openai/tiny"
# The most time for the first text: a busy machine must not make the mesh answer without the model.
SLOW = {"tier": "standard", "conversation_id": "c"}


def asked(seen: Seen) -> chat_pb2.ChatRequest:
    """The request of a Chat call."""
    return chat_pb2.ChatRequest.FromString(seen.request)


async def stored(user: Person, count: int) -> list[dict[str, object]]:
    """The messages of the conversation, once there are so many: what is cut off is stored later."""
    while len(found := await user.do("messages", conversation_id="c")) < count:
        await asyncio.sleep(0.1)
    return found  # type: ignore[no-any-return]


@case
async def frames_come_in_order(it: Case) -> None:
    """Accepted first and final last, with one trace."""
    it.answers(WHOLE)
    frames = await (await it.user()).chat("Hello!", **SLOW)
    assert frames[0]["kind"] == "accepted"
    assert [f["kind"] for f in frames].count("final") == 1
    assert frames[-1]["kind"] == "final"
    assert frames[0]["trace_id"] == frames[-1]["trace_id"]
    assert len(frames[0]["trace_id"]) == 32


@case
async def the_text_of_the_frames_is_what_is_stored(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    frames = await user.chat("Hello!", **SLOW)
    text = "".join(f["text"] for f in frames if f["kind"] == "text")
    final = frames[-1]
    assert (final["message_stored"], final["reply_stored"]) == ("stored", "stored")
    found = await user.do("messages", conversation_id="c")
    assert [(m["id"], m["role"], m["text"]) for m in found] == [
        (final["message_id"], "user", "Hello!"),
        (final["reply_id"], "assistant", text),
    ]


@case
async def a_final_frame_says_how_the_reply_came_to_be(it: Case) -> None:
    it.answers(WHOLE)
    final = (await (await it.user()).chat("Hello!", **SLOW))[-1]
    assert (final["tier"], final["model"], final["finish_reason"]) == ("standard", MODEL, "stop")
    assert 0 < final["first_text_s"] <= final["total_s"] < it.world.timeout_s
    assert (final["prompt_tokens"], final["completion_tokens"]) == (11, 3)
    assert final["confidence"] is None


@case
async def a_reply_is_told_to_rest_on_what_was_remembered(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    kept = await user.do("remember", text="My locker code is 4417.", speaker="Ann")
    frames = await user.chat("What is my locker code?", **SLOW)
    (used,) = [f for f in frames if f["kind"] == "memories"]
    assert [(m["memory_id"], m["speaker"]) for m in used["memories"]] == [(kept["id"], "Ann")]


@case
async def the_same_request_id_is_answered_once_and_then_replayed(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    first = await user.chat("I like tea.", request_id="r", **SLOW)
    again = await user.chat("I like tea.", request_id="r", **SLOW)
    assert any(f["kind"] == "accepted" and f["replayed"] for f in again)
    assert again[-1]["reply_id"] == first[-1]["reply_id"]
    assert len(await user.do("messages", conversation_id="c")) == 2


@case
async def the_same_request_id_with_another_message_is_refused(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    await user.chat("I like tea.", request_id="r", **SLOW)
    with pytest.raises(SdkError) as reused:
        await user.chat("I like coffee.", request_id="r", **SLOW)
    assert (reused.value.code, reused.value.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


@case
async def a_private_message_leaves_nothing_behind(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    final = (await user.chat("This is a secret.", store=False, **SLOW))[-1]
    assert (final["message_stored"], final["reply_stored"]) == ("not_stored", "not_stored")
    assert await user.do("conversations") == []


@case
async def leaving_a_reply_early_stops_the_model(it: Case) -> None:
    """What it had said is stored."""
    it.answers(ENDLESS)
    user = await it.user()
    await user.chat("Tell me a story.", leave_after=2, timeout_s=it.long_s, **SLOW)
    await it.until(it.hung_up, "the model was stopped")
    assert str((await stored(user, 2))[1]["text"]).startswith("Once")


@case
async def cancelling_a_reply_stops_the_model(it: Case) -> None:
    it.answers(ENDLESS)
    user = await it.user()
    chat = user.begin("chat", text="Tell me a story.", timeout_s=it.long_s, **SLOW)
    await chat.until("text")
    await chat.cancel()
    with pytest.raises(SdkError) as cancelled:
        await chat.result()
    assert cancelled.value.code == "CANCELLED"
    await it.until(it.hung_up, "the model was stopped")


@case
async def an_error_of_the_callers_own_cancels_a_reply_and_leaves_nothing_behind(it: Case) -> None:
    """Nobody goes on to look after a call that is no more."""
    it.answers(ENDLESS)
    user, door = await it.one_door()
    with pytest.raises(SdkError) as failed:
        await user.chat("Tell me a story.", fail_after=2, timeout_s=it.long_s, **SLOW)
    assert "the caller's own error" in failed.value.message
    await it.until(it.hung_up, "the model was stopped")
    before = door.health_checks
    # A replica is asked for its health when its call has been silent for 2 s.
    await asyncio.sleep(2.5)
    assert door.health_checks == before


@case
async def a_detached_reply_is_finished_without_its_caller(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    frames = await user.chat("Take your time.", detach=True, leave_after=1, **SLOW)
    assert frames[-1]["kind"] == "text"
    assert (await stored(user, 2))[1]["text"] == "Hello there"


async def told_in_time(user: Person) -> list[dict[str, Any]]:
    """A reply that its deadline ended; a tenth of a second before, short on a busy machine."""
    for _ in range(4):
        try:
            return await user.chat("Tell me a story.", timeout_s=6, **SLOW)
        except SdkError as error:
            assert error.code == "DEADLINE_EXCEEDED"
    raise AssertionError("the deadline always came before its final frame")


@case
async def a_deadline_ends_a_reply_with_what_there_is(it: Case) -> None:
    """The mesh ends it a moment before, so that the caller is told what became of it."""
    it.answers(ENDLESS)
    user = await it.user()
    frames = await told_in_time(user)
    assert any(f["kind"] == "text" for f in frames)
    assert frames[-1]["finish_reason"] == "deadline"


@case
async def replies_of_one_client_run_side_by_side(it: Case) -> None:
    it.answers(WHOLE)
    client = await it.client()
    users = [await it.user(client) for _ in range(4)]
    replies = await asyncio.gather(*(user.do("reply", text="Hello!", **SLOW) for user in users))
    assert [reply["text"] for reply in replies] == ["Hello there"] * 4


@case
async def a_reply_can_be_explained(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    final = (await user.do("reply", text="Hello!", **SLOW))["final"]
    why = await user.do("explain", message_id=final["message_id"])
    assert why == {"model": MODEL, "reply_id": final["reply_id"]}


@case
async def a_message_can_be_answered_anew_on_another_branch(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    first = (await user.do("reply", text="Hello!", **SLOW))["final"]
    parent = first["message_id"]
    other = (await user.do("reply", text="Again!", parent_message_id=parent, **SLOW))["final"]
    assert other["reply_id"] != first["reply_id"]
    assert other["reply_stored"] == "stored"


@case
async def what_an_application_brings_along_is_what_the_model_reads(it: Case) -> None:
    """Its instructions and its history, in place of what is stored."""
    it.answers(WHOLE)
    user, door = await it.one_door()
    await user.chat("I like tea.", **SLOW)
    brought = [{"role": "user", "content": "Ahoy?"}, {"role": "assistant", "content": "Ahoy!"}]
    await user.chat("And now?", history=brought, **SLOW)
    system, *said = it.world.model.asked_by(it.id)[-1]["messages"]
    assert system["content"].startswith(instructions_of(it.id))
    assert said == [*brought, {"role": "user", "content": "And now?"}]
    before, with_history = map(asked, door.seen("Chat"))
    assert (before.HasField("history"), with_history.HasField("history")) == (False, True)


@case
async def an_empty_history_is_one_too(it: Case) -> None:
    it.answers(WHOLE)
    user = await it.user()
    for more in ({}, {"history": []}):
        await user.chat("I like tea.", **more, **SLOW)
    said = it.world.model.asked_by(it.id)[-1]["messages"][1:]
    assert [message["content"] for message in said] == ["I like tea."]


@case
async def a_message_that_is_sent_again_under_its_key_is_answered_anew(it: Case) -> None:
    """It is stored once, with both replies."""
    it.answers(WHOLE)
    user = await it.user()
    for _ in range(2):
        await user.chat("Hello!", message_key="k", **SLOW)
    found = await user.do("messages", conversation_id="c")
    assert [m["text"] for m in found] == ["Hello!", "Hello there", "Hello there"]


@case
async def the_choice_of_tools_is_the_callers(it: Case) -> None:
    it.answers(WHOLE)
    user, door = await it.one_door()
    tools = [{"name": "weather"}]
    await user.chat("Hello!", tools=tools, tool_choice="none", **SLOW)
    (sent,) = map(asked, door.seen("Chat"))
    assert ([tool.name for tool in sent.tools], sent.tool_choice) == (["weather"], "none")
    assert not it.world.model.asked_by(it.id)[-1].get("tools")
