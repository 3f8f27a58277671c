"""vLLM's outputs become the events of a reply; tool calls are found in its text."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    LikelyToken,
    Message,
    Role,
    Text,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
)
from services.models.engines.vllm.reply import ReplyReader
from services.models.engines.vllm.tool_calls import ToolCallReader
from services.runtime.errors import AppError, Reason

ASKED = (Message(Role.USER, "Rain?"),)
TOOLS = (ToolSpec("weather", "Tells it.", ""),)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Leeds"}}\n</tool_call>'


def output(text: str, tokens: int = 1, **more: Any) -> SimpleNamespace:
    """An output of one request as vLLM gives it, with what is new."""
    part = {"text": text, "token_ids": list(range(tokens)), "logprobs": None, "finish_reason": None}
    return SimpleNamespace(
        num_cached_tokens=more.pop("cached", 0), outputs=[SimpleNamespace(**(part | more))]
    )


def events(request: Generation, *outputs: SimpleNamespace) -> list[Event]:
    """What a reader makes of outputs."""
    reader = ReplyReader("vllm/tiny", request, prompt_tokens=5)
    return [event for each in outputs for event in reader.take(each)]


def test_texts_are_passed_on_and_tokens_counted() -> None:
    made = events(
        Generation(ASKED),
        output("It ", 1, cached=4),
        output("", 2),
        output("rains.", 3, finish_reason="stop"),
    )
    finish = Finish(FinishReason.STOP, Usage(5, 6, 4), "vllm/tiny")
    assert made == [Text("It "), Text("rains."), finish]


def test_a_reply_cut_short_says_so() -> None:
    (_, finish) = events(Generation(ASKED), output("It", finish_reason="length"))
    assert isinstance(finish, Finish)
    assert finish.reason is FinishReason.LENGTH


def test_a_request_that_the_engine_gave_up_can_be_asked_again() -> None:
    with pytest.raises(AppError) as raised:
        events(Generation(ASKED), output("It", finish_reason="abort"))
    assert raised.value.reason is Reason.MODEL_UNAVAILABLE
    assert raised.value.retry_after_s


def test_a_tokens_log_probabilities_come_with_its_text() -> None:
    """Those of a token that is part of a character come with the text that it completes."""
    it = SimpleNamespace(logprob=-0.1, rank=1, decoded_token="It")
    she = SimpleNamespace(logprob=-2.5, rank=2, decoded_token="She")
    made = events(
        Generation(ASKED, logprobs=1),
        output("", 1, logprobs=[{0: she, 1: it}]),
        output("It", 1, logprobs=[{0: it, 1: she}], finish_reason="stop"),
    )
    likely = (LikelyToken("It", -0.1),)
    places = (TokenLogprob("She", -2.5, likely), TokenLogprob("It", -0.1, likely))
    assert made[0] == Text("It", places)


def test_a_tool_call_is_no_text() -> None:
    made = events(
        Generation(ASKED, tools=TOOLS),
        output("I look.\n<tool_"),
        output(CALL.removeprefix("<tool_"), finish_reason="stop"),
    )
    text, call, finish = made
    assert text == Text("I look.")
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments_json) == ("weather", '{"city": "Leeds"}')
    assert isinstance(finish, Finish)
    assert finish.reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("tokens_a_piece", [1, 4, 100])
@pytest.mark.parametrize("held_back", [0, 3])
def test_the_tokens_of_a_call_are_told_with_no_text(tokens_a_piece: int, held_back: int) -> None:
    """However many tokens come at once, and where text comes later than its tokens."""
    said = ["I ", "look", ".", "\n", *re.findall(r"\W|\w+", CALL), " Then", " I", " go", "."]
    text, tokens = (
        "".join(said),
        [SimpleNamespace(logprob=-1, rank=1, decoded_token=t) for t in said],
    )
    outputs, given = [], 0
    for end in range(tokens_a_piece, len(said) + tokens_a_piece, tokens_a_piece):
        last = end >= len(said)
        shown = len(text) if last else max(given, len("".join(said[:end])) - held_back)
        new = tokens[end - tokens_a_piece : end]
        outputs.append(
            output(
                text[given:shown],
                len(new),
                logprobs=[{number: token} for number, token in enumerate(new)],
                finish_reason="stop" if last else None,
            )
        )
        given = shown
    made = events(Generation(ASKED, tools=TOOLS, logprobs=1), *outputs)
    assert sum(isinstance(event, ToolCall) for event in made) == 1
    places = [place.token for e in made if isinstance(e, Text) for place in e.logprobs]
    assert places == ["I ", "look", ".", " Then", " I", " go", "."]


def test_without_tools_the_same_words_are_text() -> None:
    (text, _) = events(Generation(ASKED), output(CALL, finish_reason="stop"))
    assert text == Text(CALL)


@given(st.lists(st.integers(0, len(CALL)), max_size=6), st.sampled_from(["", "Yes: ", "a < b "]))
def test_calls_are_found_however_the_text_is_cut(cuts: list[int], before: str) -> None:
    whole = before + CALL + "\n" + CALL
    places = sorted({0, len(whole), *cuts})
    reader = ToolCallReader(new_id=lambda: "call_1")
    parts = [
        part for start, end in itertools.pairwise(places) for part in reader.take(whole[start:end])
    ]
    parts += reader.end()
    call = ToolCall("call_1", "weather", '{"city": "Leeds"}')
    assert [part for part in parts if isinstance(part, ToolCall)] == [call, call]
    assert "".join(part for part in parts if isinstance(part, str)) == before.rstrip()


@given(st.text(alphabet="<tool_cal>/ \n{}", max_size=60), st.integers(1, 7))
def test_text_that_is_no_call_is_passed_on_whole(text: str, size: int) -> None:
    reader = ToolCallReader()
    parts = [p for n in range(0, len(text), size) for p in reader.take(text[n : n + size])]
    parts += reader.end()
    written = "".join(part for part in parts if isinstance(part, str))
    assert written.replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")


@pytest.mark.parametrize(
    "body", ["{", "[]", '{"name": ""}', '{"arguments": {}}', '{"name": 3}', "null"]
)
def test_what_stands_where_a_call_should_is_shown_if_it_is_none(body: str) -> None:
    reader = ToolCallReader()
    written = f"<tool_call>{body}</tool_call>"
    assert [*reader.take(written), *reader.end()] == [written]
    assert not reader.called


def test_the_last_call_may_lack_its_end() -> None:
    reader = ToolCallReader(new_id=lambda: "call_1")
    assert reader.take('<tool_call>{"name": "now"}') == []
    assert reader.end() == [ToolCall("call_1", "now", "{}")]
