"""What is tried again, how often, and that it happens once."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2

from echomesh.auth.v1 import admin_pb2
from echomesh.common.v1 import options_pb2
from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2
from tests.conformance.cases import case
from tests.conformance.door import Refusal
from tests.conformance.sdk import SdkError
from tests.conformance.world import WHOLE, Case

AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", retry_after_s=0.0)
BROKEN = Refusal(grpc.StatusCode.UNAVAILABLE)
# What a client may know of; their methods are looked up by name.
PROTOS = (admin_pb2, conversation_pb2, memory_pb2, chat_pb2, routing_pb2)


def attempts_by_proto(method: str) -> int:
    """How often a method ("package.Service.Method") may be tried, as its proto says."""
    found = memory_pb2.DESCRIPTOR.pool.FindMethodByName(method)
    options: descriptor_pb2.MethodOptions = found.GetOptions()
    retry = options.Extensions[options_pb2.retry]
    return max(1, retry.max_attempts) if retry.idempotent else 1


@case
async def a_passing_failure_is_not_seen(it: Case) -> None:
    """The very same request is sent again."""
    user, door = await it.one_door()
    door.fails("Remember", AWAY, times=2)
    memory = await user.do("remember", text="I like tea.")
    assert len({seen.request for seen in door.seen("Remember")}) == 1
    assert len(door.seen("Remember")) == 3
    assert [m["id"] for m in await user.do("memories")] == [memory["id"]]


@case
async def a_lasting_failure_is_told_after_as_many_attempts_as_the_proto_says(it: Case) -> None:
    """For every method that the SDK knows, its table is the protos'."""
    user, door = await it.one_door()
    door.fails("Recall", AWAY, times=9)
    with pytest.raises(SdkError) as away:
        await user.do("recall", query="tea")
    assert (away.value.code, away.value.reason) == ("UNAVAILABLE", AWAY.reason)
    assert len(door.seen("Recall")) == attempts_by_proto("echomesh.memory.v1.MemoryService.Recall")
    table = await it.sdk.ask("retry_table").result()
    assert table == {method: attempts_by_proto(method) for method in table}
    assert {"echomesh.routing.v1.ChatService.Chat", "echomesh.auth.v1.AuthService.Login"} < set(
        table
    )


@case
async def a_service_that_is_full_is_asked_again_when_it_said(it: Case) -> None:
    user, door = await it.one_door()
    full = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.5)
    door.fails("Recall", full)
    assert (await user.do("recall", query="tea"))["hits"] == []
    first, second = door.seen("Recall")
    assert second.at - first.at >= 0.5


@case
async def no_one_waits_longer_than_the_call_may_take(it: Case) -> None:
    user, door = await it.one_door()
    full = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=90.5)
    door.fails("Recall", full)
    with pytest.raises(SdkError) as overloaded:
        await user.do("recall", query="tea", timeout_s=20)
    assert (overloaded.value.reason, overloaded.value.retry_after_s) == ("OVERLOADED", 90.5)
    assert len(door.seen("Recall")) == 1


@case
async def what_will_not_pass_is_not_tried_again(it: Case) -> None:
    user, door = await it.one_door()
    door.fails("Recall", Refusal(grpc.StatusCode.INTERNAL, "INTERNAL"))
    with pytest.raises(SdkError) as internal:
        await user.do("recall", query="tea")
    assert internal.value.reason == "INTERNAL"
    assert len(door.seen("Recall")) == 1


@case
async def a_write_whose_answer_was_lost_happens_once(it: Case) -> None:
    user, door = await it.one_door()
    door.loses_answer("Remember")
    memory = await user.do("remember", text="I like tea.")
    assert len(door.seen("Remember")) == 2
    assert [m["id"] for m in await user.do("memories")] == [memory["id"]]


@case
async def an_import_whose_answer_was_lost_happens_once(it: Case) -> None:
    user, door = await it.one_door()
    door.loses_answer("AppendMessages")
    messages = [{"role": "user", "text": "Hello."}]
    done = await user.do("import_messages", conversation_id="c", messages=messages)
    assert done == {"stored": 0, "duplicates": 1, "refused": []}
    assert len(await user.do("messages", conversation_id="c")) == 1


@case
async def a_broken_connection_is_made_anew_for_as_long_as_the_call_may_take(it: Case) -> None:
    """More often than a failing service is asked: a service may be starting again."""
    user, door = await it.one_door()
    door.fails("Recall", BROKEN, times=5)
    assert (await user.do("recall", query="tea"))["hits"] == []
    assert len(door.seen("Recall")) == 6


@case
async def a_chat_that_is_refused_for_a_moment_is_sent_again_with_its_id(it: Case) -> None:
    it.answers(WHOLE)
    user, door = await it.one_door()
    door.fails("Chat", AWAY, times=2)
    frames = await user.chat("Hello!", conversation_id="c", tier="standard")
    assert frames[-1]["kind"] == "final"
    assert not any(f["kind"] == "restart" for f in frames)
    sent = [chat_pb2.ChatRequest.FromString(s.request) for s in door.seen("Chat")]
    assert len({request.request_id for request in sent}) == 1
    assert len(sent) == 3


@case
async def a_reply_whose_end_was_lost_is_told_again(it: Case) -> None:
    """The mesh replays it; that the text so far is void is for the SDK to say."""
    it.answers(WHOLE)
    user, door = await it.one_door()
    door.loses_end("Chat")
    frames = await user.chat("Hello!", conversation_id="c", tier="standard")
    kinds = [f["kind"] for f in frames]
    void = kinds.index("restart")
    assert "text" in kinds[:void]
    assert any(f["kind"] == "accepted" and f["replayed"] for f in frames[void:])
    text = "".join(f["text"] for f in frames[void:] if f["kind"] == "text")
    assert (text, kinds[-1]) == ("Hello there", "final")
    found = await user.do("messages", conversation_id="c")
    assert [m["text"] for m in found] == ["Hello!", "Hello there"]
