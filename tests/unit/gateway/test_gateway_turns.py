"""What of a chat completion becomes which part of a turn."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from services.gateway.openai.headers import Asked, MemoryUse, asked_in
from services.gateway.openai.schema import ChatCompletionRequest, CompletionRequest
from services.gateway.openai.turns import chat_turn, completion_turn
from services.runtime.errors import AppError, Reason

MONDAY, TUESDAY = date(2026, 11, 16), date(2026, 11, 17)
NAMED = Asked(conversation_id="c1")
OPEN_WEBUI = asked_in({"x-openwebui-chat-id": "c1"})
TOOL = {"type": "function", "function": {"name": "f"}}


def say(*said: tuple[str, str], **more: Any) -> ChatCompletionRequest:
    messages = [{"role": role, "content": content} for role, content in said]
    return ChatCompletionRequest.model_validate({"messages": messages, **more})


def turn(*said: tuple[str, str], asked: Asked = NAMED, on: date = MONDAY, **more: Any) -> Any:
    return chat_turn(say(*said, **more), asked, "r1", on)


def test_the_last_user_message_is_the_text_and_what_came_before_is_history() -> None:
    made = turn(("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert (made.text, made.instructions) == ("c", "Be brief.")
    told = [(m.role, m.content) for m in made.history.messages]
    assert told == [(models_pb2.CHAT_ROLE_USER, "a"), (models_pb2.CHAT_ROLE_ASSISTANT, "b")]


def test_instructions_anywhere_are_joined_in_their_order() -> None:
    made = turn(("system", "One."), ("user", "a"), ("developer", "Two."))
    assert made.instructions == "One.\n\nTwo."


def test_without_a_user_message_the_last_instruction_is_the_message() -> None:
    made = turn(("system", "You write titles."), ("system", "Write one."))
    assert (made.text, made.instructions) == ("Write one.", "You write titles.")


def test_a_reply_without_a_user_message_before_it_is_refused() -> None:
    with pytest.raises(AppError) as refused:
        turn(("assistant", "Hello"))
    assert refused.value.reason == Reason.INVALID_REQUEST


def test_a_message_sent_again_after_the_same_history_has_the_same_key() -> None:
    said = (("user", "a"), ("assistant", "b"), ("user", "c"))
    assert turn(*said).message_key == turn(*said, temperature=1.0, on=TUESDAY).message_key


@pytest.mark.parametrize(
    "other",
    [
        (("user", "a"), ("assistant", "b"), ("user", "d")),
        (("user", "a"), ("assistant", "x"), ("user", "c")),
        (("user", "c"),),
    ],
)
def test_another_text_or_another_history_makes_another_key(
    other: tuple[tuple[str, str], ...],
) -> None:
    first = turn(("user", "a"), ("assistant", "b"), ("user", "c"))
    assert first.message_key != turn(*other).message_key


def test_system_prompts_do_not_count_since_many_hold_the_time_of_day() -> None:
    said = (("user", "a"), ("assistant", "b"), ("user", "c"))
    one, two = turn(("system", "10:00"), *said), turn(("system", "10:01"), *said)
    assert one.message_key == two.message_key


def test_the_first_message_of_an_unnamed_conversation_is_a_new_one_the_next_day() -> None:
    hello = ("user", "good morning")
    today = turn(hello, asked=Asked())
    assert today.message_key == turn(hello, asked=Asked()).message_key
    assert today.message_key != turn(hello, asked=Asked(), on=TUESDAY).message_key


def test_an_unnamed_conversation_keeps_its_name_as_it_grows() -> None:
    first = turn(("user", "a"), asked=Asked())
    second = turn(("user", "a"), ("assistant", "b"), ("user", "c"), asked=Asked(), on=TUESDAY)
    assert first.conversation_id == second.conversation_id != ""


def test_an_unnamed_conversation_sees_what_the_client_sent_and_nothing_stored() -> None:
    assert turn(("user", "a"), asked=Asked()).HasField("history")


def test_a_named_conversation_without_history_is_continued_from_what_is_stored() -> None:
    assert not turn(("user", "a")).HasField("history")


def test_the_same_words_again_are_a_new_message_where_the_mesh_knows_what_came_before() -> None:
    """Else a second "yes" would be answered as if all since the first one had not been said."""
    assert not turn(("user", "yes")).message_key
    assert turn(("user", "yes"), tools=[TOOL]).message_key


def test_a_front_end_that_brings_its_history_is_not_continued_from_what_is_stored() -> None:
    """The first message of an Open WebUI chat, edited or regenerated, has nothing before it."""
    first, again = (turn(("user", "a"), asked=OPEN_WEBUI, on=day) for day in (MONDAY, TUESDAY))
    assert first.HasField("history")
    assert first.message_key == again.message_key != ""


def test_what_no_user_said_is_not_remembered_as_if_one_had() -> None:
    made = turn(("system", "Summarise the following."))
    assert (made.store, made.recall) == (False, False)
    assert turn(("system", "Sum it up."), asked=asked_in({"x-echomesh-memory": "on"})).store


def test_results_of_tools_belong_to_the_message_that_was_sent_before() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "user", "content": "What is it?"}
    again = [
        asked,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    first, second = (
        chat_turn(
            ChatCompletionRequest.model_validate({"messages": messages, "tools": [TOOL]}),
            NAMED,
            "r",
            MONDAY,
        )
        for messages in ([asked], again)
    )
    assert first.message_key == second.message_key
    assert [call.name for call in second.tool_messages[0].tool_calls] == ["f"]
    assert (second.tool_messages[1].tool_call_id, second.tool_messages[1].content) == ("c1", "42")


@pytest.mark.parametrize(
    ("name", "tier", "model"),
    [
        ("echomesh", chat_pb2.TIER_UNSPECIFIED, ""),
        ("echomesh-instant", chat_pb2.TIER_INSTANT, ""),
        ("echomesh-fast", chat_pb2.TIER_FAST, ""),
        ("echomesh-standard", chat_pb2.TIER_STANDARD, ""),
        ("openai/tiny", chat_pb2.TIER_UNSPECIFIED, "openai/tiny"),
    ],
)
def test_a_model_is_a_tier_the_meshs_choice_or_a_model(name: str, tier: int, model: str) -> None:
    made = turn(("user", "a"), model=name)
    assert (tier, model) == (made.tier, made.model)


@pytest.mark.parametrize(
    ("header", "store", "recall"),
    [(None, True, True), ("on", True, True), ("read", False, True), ("off", False, False)],
)
def test_a_header_says_what_memory_is_for(header: str | None, store: bool, recall: bool) -> None:
    asked = asked_in({} if header is None else {"x-echomesh-memory": header})
    made = turn(("user", "a"), asked=asked)
    assert (store, recall) == (made.store, made.recall)


def test_store_false_keeps_a_message_out_of_memory() -> None:
    made = turn(("user", "a"), store=False)
    assert (made.store, made.recall) == (False, True)


def test_what_a_front_end_asks_for_itself_leaves_memory_alone() -> None:
    errand = ("user", "### Task:\nGenerate a title.\n<chat_history>\nUSER: I live in Lima\n")
    made = turn(errand)
    assert (made.store, made.recall) == (False, False)
    assert turn(errand, asked=asked_in({"x-echomesh-memory": "on"})).store


def test_a_plain_completion_leaves_memory_alone_unless_told() -> None:
    body = CompletionRequest(prompt="Once")
    assert not completion_turn(body, Asked(), "r").store
    assert completion_turn(body, Asked(memory=MemoryUse.ON), "r").store


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, ""),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, "f"),
    ],
)
def test_the_choice_of_tools_is_passed_on(given: Any, sent: str) -> None:
    assert sent == turn(("user", "a"), tool_choice=given).tool_choice


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"type": "text"}, ""),
        ({"type": "json_object"}, "{}"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
         '{"type": "object"}'),
    ],
)  # fmt: skip
def test_a_response_format_is_passed_on_as_a_schema(given: Any, schema: str) -> None:
    assert schema == turn(("user", "a"), response_format=given).response_format.json_schema


def test_functions_of_the_old_kind_are_refused_and_not_passed_over() -> None:
    with pytest.raises(ValidationError):
        say(("user", "a"), functions=[{"name": "f"}])


def test_parts_of_text_are_joined_and_a_picture_is_refused() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": parts}]})
    assert chat_turn(body, NAMED, "r", MONDAY).text == "a\nb"
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    body = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": picture}]}
    )
    with pytest.raises(AppError) as refused:
        chat_turn(body, NAMED, "r", MONDAY)
    assert refused.value.reason == Reason.NOT_SUPPORTED


def test_a_text_that_is_too_long_is_refused_as_a_context_that_is() -> None:
    with pytest.raises(AppError) as refused:
        turn(("user", "x" * 40_000))
    assert refused.value.reason == Reason.CONTEXT_TOO_LONG


@pytest.mark.parametrize(
    "headers",
    [
        {"x-echomesh-memory": "maybe"},
        {"x-echomesh-conversation": "x" * 129},
        {"x-echomesh-conversation": "a\tb"},
        {"idempotency-key": "x" * 65},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(AppError) as refused:
        asked_in(headers)
    assert refused.value.reason == Reason.INVALID_REQUEST
