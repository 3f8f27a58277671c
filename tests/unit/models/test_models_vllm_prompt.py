"""A request as a model's own template and tokenizer have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.models.domain import Generation, Message, Role, ToolCall, ToolSpec
from services.models.engines.vllm.prompt import Prompts, chat_messages, chat_tools, takes_tools
from services.runtime.errors import AppError, Reason


class Words:
    """A tokenizer whose tokens are words."""

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        if any(message["role"] == "tool" for message in messages):
            raise RuntimeError("this template knows no tools")
        thinking = options.pop("enable_thinking")
        assert options == {"tools": None, "add_generation_prompt": True, "tokenize": False}
        text = " ".join(message["content"] for message in messages)
        return f"{text} think" if thinking else text

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> list[int]:
        """Words, between a zero and another one."""
        words = [len(word) for word in text.split()]
        if not add_special_tokens:
            return words
        return [0, *words[: max_length - 2 if truncation and max_length else None], 0]


@pytest.fixture
async def prompts() -> AsyncIterator[Prompts]:
    """Prompts of at most five tokens."""
    made = Prompts("vllm/tiny", Words(), context_length=5)
    yield made
    made.close()


async def test_a_prompt_leaves_room_for_a_token(prompts: Prompts) -> None:
    assert await prompts.of(Generation((Message(Role.USER, "a bb ccc d"),))) == [1, 2, 3, 1]
    with pytest.raises(AppError) as raised:
        await prompts.of(Generation((Message(Role.USER, "a bb ccc d e"),)))
    assert raised.value.reason is Reason.CONTEXT_TOO_LONG


async def test_what_a_template_does_not_take_is_refused(prompts: Prompts) -> None:
    with pytest.raises(AppError) as raised:
        await prompts.of(Generation((Message(Role.TOOL, "rain"),)))
    assert raised.value.reason is Reason.MODEL_REFUSED


async def test_texts_are_counted_without_special_tokens_and_read_with_them(
    prompts: Prompts,
) -> None:
    assert await prompts.count(["one two", ""]) == [2, 0]
    assert await prompts.of_text("a b c") == ([0, 1, 1, 1, 0], False)


async def test_a_text_that_does_not_fit_is_cut_in_front_of_its_last_special_token(
    prompts: Prompts,
) -> None:
    assert await prompts.of_text("a bb ccc dddd") == ([0, 1, 2, 3, 0], True)


@pytest.mark.parametrize(("thinking", "tokens"), [(False, [2]), (True, [2, 5])])
async def test_a_model_thinks_before_it_replies_only_where_it_is_told_to(
    thinking: bool, tokens: list[int]
) -> None:
    prompts = Prompts("vllm/tiny", Words(), context_length=5, thinking=thinking)
    assert await prompts.of(Generation((Message(Role.USER, "Hi"),))) == tokens
    prompts.close()


def test_templates_get_the_arguments_of_calls_as_objects() -> None:
    call = ToolCall("call_1", "weather", '{"city": "Leeds"}')
    made = chat_messages(
        [Message(Role.ASSISTANT, "", tool_calls=(call,)), Message(Role.TOOL, "rain", "call_1")]
    )
    function = {"name": "weather", "arguments": {"city": "Leeds"}}
    assert made == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]


def test_templates_get_tools_as_functions() -> None:
    (made,) = chat_tools([ToolSpec("weather", "Tells it.", '{"type": "object"}')]) or []
    assert made == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells it.",
            "parameters": {"type": "object"},
        },
    }
    assert chat_tools([]) is None


def test_whether_a_model_takes_tools_is_seen_in_its_template() -> None:
    assert takes_tools("{% for tool in tools %}{{ tool }}{% endfor %}")
    assert not takes_tools("{% for message in messages %}{{ message }}{% endfor %}")
