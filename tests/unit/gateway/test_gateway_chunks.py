"""A stream shows one reply: what was sent stays, and what cannot go on from it is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from echomesh.routing.v1 import chat_pb2
from services.gateway.openai.chunks import Chunks
from services.runtime.errors import AppError, Reason
from tests.support.gateway import call_frame, final_frame, restart_frame, text_frame


def made(chat: bool = True, with_usage: bool = False) -> Chunks:
    return Chunks("id-1", 7, chat=chat, with_usage=with_usage)


def events(chunks: Chunks, *frames: chat_pb2.ChatResponse) -> list[Any]:
    sent = b"".join(chunks.take(frame) for frame in frames)
    lines = [line.removeprefix("data: ") for line in sent.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def said(found: list[Any]) -> str:
    choices = [each["choices"][0] for each in found if each != "[DONE]" and each["choices"]]
    return "".join(c["delta"].get("content") or "" if "delta" in c else c["text"] for c in choices)


def test_a_reply_is_a_role_its_text_a_reason_and_an_end() -> None:
    found = events(made(), text_frame('Say "hé"\n'), text_frame("!"), final_frame())
    assert said(found) == 'Say "hé"\n!'
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-1] == "[DONE]"
    assert {"id-1"} == {each["id"] for each in found[:-1]}


def test_usage_comes_in_a_chunk_of_its_own_if_it_was_asked_for() -> None:
    found = events(made(with_usage=True), text_frame("a"), final_frame())
    assert (found[-2]["choices"], found[-2]["usage"]["total_tokens"]) == ([], 10)
    assert all(each["usage"] is None for each in found[:-2])
    without = events(made(), text_frame("a"), final_frame())
    assert all("usage" not in each for each in without[:-1])


def test_a_plain_completion_has_its_text_in_another_place() -> None:
    found = events(made(chat=False), text_frame("Once "), text_frame("upon"), final_frame())
    assert said(found) == "Once upon"
    assert {"text_completion"} == {each["object"] for each in found[:-1]}


def test_calls_of_tools_are_numbered() -> None:
    found = events(made(), call_frame("f"), call_frame("g", '{"x":1}'), final_frame())
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in found[1:3]]
    assert [(c["index"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        (0, "f", "{}"),
        (1, "g", '{"x":1}'),
    ]


def test_a_reply_begun_anew_that_says_the_same_goes_on_without_a_seam() -> None:
    frames = [text_frame("Hello the"), restart_frame(), text_frame("Hel"), text_frame("lo there")]
    found = events(made(), *frames, final_frame())
    assert said(found) == "Hello there"


def test_a_reply_begun_anew_that_says_something_else_ends_the_stream_with_an_error() -> None:
    chunks = made()
    events(chunks, text_frame("Hello"), restart_frame())
    with pytest.raises(AppError) as ended:
        chunks.take(text_frame("Good day"))
    assert ended.value.reason == Reason.TURN_SUPERSEDED


def test_a_reply_begun_anew_that_ends_before_what_was_sent_is_an_error() -> None:
    chunks = made()
    events(chunks, text_frame("Hello there"), restart_frame(), text_frame("Hello"))
    with pytest.raises(AppError):
        chunks.take(final_frame())


def test_a_call_that_was_sent_cannot_be_taken_back() -> None:
    chunks = made()
    events(chunks, call_frame("f"), restart_frame())
    with pytest.raises(AppError):
        chunks.take(call_frame("g"))


def test_a_call_that_is_not_made_again_cannot_be_taken_back_either() -> None:
    chunks = made()
    events(chunks, call_frame("f"), restart_frame(), text_frame("It is warm."))
    with pytest.raises(AppError) as ended:
        chunks.take(final_frame())
    assert ended.value.reason == Reason.TURN_SUPERSEDED


@pytest.mark.parametrize("chat", [True, False])
def test_text_breaks_no_line_of_the_stream(chat: bool) -> None:
    """Some clients take these for the end of a line, as Python's own splitlines does."""
    text = "a\u2028b\u2029c\x85d\x0be\r\nf"
    sent = made(chat=chat).take(text_frame(text)).decode()
    assert [line for line in sent.splitlines() if line] == sent.split("\n\n")[:-1]
    assert text in said(events(made(chat=chat), text_frame(text)))


def test_a_restart_before_any_text_is_nobodys_business() -> None:
    found = events(made(), restart_frame(), text_frame("Hello"), final_frame())
    assert said(found) == "Hello"


def test_a_reply_that_broke_off_is_no_whole_one() -> None:
    chunks = made()
    events(chunks, text_frame("Hel"))
    frame = final_frame()
    frame.final.finish_reason = 5
    with pytest.raises(AppError) as ended:
        chunks.take(frame)
    assert ended.value.reason == Reason.MODEL_UNAVAILABLE
