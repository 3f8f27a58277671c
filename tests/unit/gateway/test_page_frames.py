"""What the page reads of a reply, and of what is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2
from services.gateway.page import shapes
from services.gateway.page.frames import error_event, event_of
from services.runtime.errors import AppError, Reason, invalid


def read(event: bytes) -> dict[str, Any]:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    told: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
    return told


def test_every_kind_of_frame_has_an_event_of_its_type() -> None:
    kinds = [each.name for each in chat_pb2.ChatResponse.DESCRIPTOR.oneofs_by_name["frame"].fields]
    for kind in kinds:
        frame = chat_pb2.ChatResponse()
        getattr(frame, kind).SetInParent()
        assert read(event_of(frame))["type"] == kind


def test_a_frame_of_a_later_release_is_left_out() -> None:
    assert event_of(chat_pb2.ChatResponse()) == b""


def test_text_is_one_event_whatever_it_holds() -> None:
    text = 'two\n\nlines "quoted" <b>\u2028 ☕'
    assert read(event_of(chat_pb2.ChatResponse(text={"text": text})))["text"] == text


def test_a_decision_is_told_in_the_contracts_words() -> None:
    decision = chat_pb2.Decision(
        tier=chat_pb2.TIER_FAST, query_type=chat_pb2.QUERY_TYPE_RECALL, model="tiny", reason="why"
    )
    told = read(event_of(chat_pb2.ChatResponse(decision=decision)))
    assert told == {
        "type": "decision",
        "tier": "fast",
        "query_type": "recall",
        "model": "tiny",
        "reason": "why",
    }


def test_an_enum_value_of_a_later_release_is_told_as_none() -> None:
    assert shapes.enum_name(chat_pb2.Tier, 77, "TIER_") == ""


def test_the_end_tells_times_in_milliseconds_and_what_was_stored() -> None:
    final = chat_pb2.Final(
        reply_stored=chat_pb2.STORE_RESULT_NOT_STORED,
        message_stored=chat_pb2.STORE_RESULT_STORED,
        finish_reason=conversation_pb2.FINISH_REASON_CANCELLED,
        used_memory_ids=["m1"],
        degraded=["index"],
    )
    final.first_text.FromMilliseconds(412)
    told = read(event_of(chat_pb2.ChatResponse(final=final)))
    assert (told["first_text_ms"], told["total_ms"]) == (412, None)
    assert (told["message_stored"], told["reply_stored"]) == ("stored", "not_stored")
    assert (told["finish_reason"], told["confidence"]) == ("cancelled", None)
    assert (told["used_memory_ids"], told["degraded"]) == (["m1"], ["index"])


def test_a_used_memory_has_its_text_its_date_and_its_score() -> None:
    used = chat_pb2.UsedMemory(memory_id="m1", text="I keep bees.", speaker="Maya", score=0.5)
    used.time.FromJsonString("2026-03-08T19:12:00Z")
    told = shapes.used_memory(used)
    assert told["time"] == "2026-03-08T19:12:00Z"
    assert (told["id"], told["text"], told["score"]) == ("m1", "I keep bees.", 0.5)
    assert shapes.used_memory(chat_pb2.UsedMemory())["time"] is None


def test_an_error_in_a_stream_names_the_field_and_when_to_come_back() -> None:
    told = read(error_event(invalid("text", "is too long")))
    assert (told["type"], told["error"]["param"]) == ("error", "text")
    assert "retry_after_s" not in told
    busy = AppError(Reason.OVERLOADED, "full", retry_after_s=2.0)
    assert read(error_event(busy))["retry_after_s"] == 2.0


def test_an_explanation_tells_everything_that_the_contract_does() -> None:
    why = routing_pb2.ExplainResponse(
        request_id="r1",
        attempts=[routing_pb2.Attempt(model="a", error_reason="OVERLOADED", elapsed_ms=7)],
        confidence=0.75,
    )
    why.timings.generated.FromMilliseconds(9)
    told = shapes.explanation(why)
    assert set(told) >= {each.name for each in why.DESCRIPTOR.fields}
    assert told["attempts"] == [{"model": "a", "error_reason": "overloaded", "elapsed_ms": 7}]
    assert told["timings"]["generated_ms"] == 9
    assert told["timings"]["started_ms"] is None
    assert told["confidence"] == 0.75


def test_a_hit_tells_every_part_of_its_score() -> None:
    scores = memory_pb2.RecallScores(keyword=0.5, neighbours=-0.25)
    hit = memory_pb2.RecallHit(memory=memory_pb2.Memory(id="m1", version=2), scores=scores)
    told = shapes.recall_hit(hit)
    assert set(told["scores"]) == {each.name for each in scores.DESCRIPTOR.fields}
    assert (told["scores"]["keyword"], told["scores"]["neighbours"]) == (0.5, -0.25)
    assert (told["memory"]["id"], told["memory"]["version"]) == ("m1", 2)


@pytest.mark.parametrize(
    ("text", "told"), [("I keep\n bees.", "I keep bees."), ("x" * 99, "x" * 80 + "…")]
)
def test_a_conversation_is_listed_by_how_it_begins(text: str, told: str) -> None:
    opening = conversation_pb2.Message(text=text)
    assert shapes.conversation(conversation_pb2.Conversation(), opening)["opening"] == told


def test_a_conversation_without_messages_is_listed_too() -> None:
    assert shapes.conversation(conversation_pb2.Conversation(id="c1"), None)["opening"] == ""


def test_a_stored_message_tells_the_key_it_was_sent_with() -> None:
    with_key = conversation_pb2.Message(metadata={shapes.KEY: "k1"})
    assert shapes.message(with_key)["message_key"] == "k1"
    assert shapes.message(conversation_pb2.Message())["message_key"] == ""
