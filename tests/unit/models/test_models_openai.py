"""The OpenAI-compatible backend against a server that behaves, and one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from services.models.config import Upstream
from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    LikelyToken,
    Message,
    Role,
    Sampling,
    State,
    Text,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
)
from services.models.openai import backend as backend_module
from services.models.openai import upstream as upstream_module
from services.models.openai.backend import OpenAIBackend
from services.models.openai.upstream import Server
from services.runtime.clock import SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from tests.support.openai_double import (
    DONE,
    USAGE,
    Answer,
    OpenAIDouble,
    delta,
    finish,
    openai_double,
    reply,
    sse,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and probing keep their shape but take no time."""
    monkeypatch.setattr(backend_module, "_wait", lambda _: 0.0)
    monkeypatch.setattr(backend_module, "PROBE_AWAY_S", 0.02)
    monkeypatch.setattr(upstream_module, "_AFTER_FINISH_S", 0.05)


@pytest.fixture
async def double() -> AsyncIterator[OpenAIDouble]:
    async with openai_double() as running:
        yield running


@asynccontextmanager
async def backend_of(double: OpenAIDouble, **settings: Any) -> AsyncIterator[OpenAIBackend]:
    upstream = Upstream(**{"url": double.url, "timeout_s": 5.0, "retries": 0, **settings})
    server = Server(upstream)
    try:
        backend = OpenAIBackend(upstream, server, SystemClock())
        await backend.probe()
        yield backend
    finally:
        await server.close()


def asking(text: str = "Hi", **more: Any) -> Generation:
    return Generation(messages=(Message(Role.USER, text),), **more)


async def events_of(double: OpenAIDouble, request: Generation, **settings: Any) -> list[Event]:
    async with backend_of(double, **settings) as backend:
        with deadline_scope(30.0):
            return [e async for e in backend.generate(request, backend.models()[0])]


async def failure_of(double: OpenAIDouble, answer: Answer, **settings: Any) -> AppError:
    double.answers = [answer]
    with pytest.raises(AppError) as caught:
        await events_of(double, asking(), **settings)
    return caught.value


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def test_a_reply_streams_and_ends_with_the_servers_own_counts(double):
    events = await events_of(double, asking())
    assert text_of(events) == "Hello there"
    assert events[-1] == Finish(FinishReason.STOP, Usage(11, 3, 0), "openai/tiny")


async def test_the_request_carries_messages_sampling_tools_and_key(double):
    sampling = Sampling(temperature=0.5, seed=7, stop=("x",), max_tokens=9)
    tool = ToolSpec("look", "looks", '{"type": "object"}')
    await events_of(
        double,
        asking("Hi", sampling=sampling, tools=(tool,), response_schema='{"type": "object"}'),
        api_key="s3cret",
    )
    body = double.requests[0]
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["temperature"], body["seed"], body["stop"]) == (0.5, 7, ["x"])
    assert (body["max_tokens"], body["model"], body["stream"]) == (9, "tiny", True)
    assert body["tools"][0]["function"]["parameters"] == {"type": "object"}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert double.headers[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        ("look", {"type": "function", "function": {"name": "look"}}),
    ],
)
async def test_the_request_carries_the_choice_of_tools(double, choice, sent):
    tool = ToolSpec("look", "looks", '{"type": "object"}')
    await events_of(double, asking("Hi", tools=(tool,), tool_choice=choice))
    assert double.requests[0]["tool_choice"] == sent


async def test_tool_calls_in_pieces_come_out_whole(double):
    first = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"a"'}}
    second = {"index": 0, "function": {"arguments": ": 1}"}}
    double.answers = [
        Answer([delta(tool_calls=[first]), delta(tool_calls=[second]), finish("tool_calls"), DONE])
    ]
    call, end = await events_of(double, asking())
    assert call == ToolCall("c1", "look", '{"a": 1}')
    assert isinstance(end, Finish)
    assert end.reason is FinishReason.TOOL_CALLS


async def test_log_probabilities_come_with_the_text_they_are_of(double):
    """A character that takes two tokens gets the places of both."""

    def piece(content: str, token: str) -> bytes:
        other = {"token": "x", "logprob": -2.5}
        place = {"token": token, "logprob": -0.5, "top_logprobs": [other]}
        choice = {"delta": {"content": content}, "logprobs": {"content": [place]}}
        return sse({"choices": [choice]})

    double.answers = [Answer([piece("", "a"), piece("é", "b"), finish(), DONE])]
    text, _ = await events_of(double, asking(logprobs=1))
    others = (LikelyToken("x", -2.5),)
    assert text == Text("é", (TokenLogprob("a", -0.5, others), TokenLogprob("b", -0.5, others)))
    body = double.requests[0]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 1)
    await events_of(double, asking())
    assert "logprobs" not in double.requests[1]


async def test_log_probabilities_of_a_tool_call_are_of_no_text(double):
    place = {"token": "a", "logprob": -0.5, "top_logprobs": []}
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": " "}}
    piece = sse({"choices": [{"delta": {"tool_calls": [call]}, "logprobs": {"content": [place]}}]})
    double.answers = [Answer([piece] * 2000 + [delta("Hi"), finish(), DONE])]
    text, made, _ = await events_of(double, asking(logprobs=1))
    assert text == Text("Hi")
    assert isinstance(made, ToolCall)


async def test_a_model_that_thought_until_its_tokens_were_spent_has_answered(double):
    double.answers = [Answer([delta(reasoning_content="Hm"), finish("length"), USAGE, DONE])]
    (end,) = await events_of(double, asking())
    assert end == Finish(FinishReason.LENGTH, Usage(11, 3, 0), "openai/tiny")


async def test_a_server_that_does_not_stream_is_understood_too(double):
    whole = b'{"choices": [{"message": {"content": "All"}, "finish_reason": "length"}]}'
    double.answers = [Answer([whole], content_type="application/json; charset=utf-8")]
    events = await events_of(double, asking())
    assert text_of(events) == "All"
    assert isinstance(events[-1], Finish)
    assert events[-1].reason is FinishReason.LENGTH


async def test_a_stream_that_stays_open_after_its_finish_ends_anyway(double):
    double.answers = [Answer([delta("Done"), finish()], hold=True)]
    events = await events_of(double, asking())
    assert text_of(events) == "Done"
    assert isinstance(events[-1], Finish)


async def test_an_empty_finish_reason_is_no_finish(double):
    pieces = [sse({"choices": [{"delta": {"content": t}, "finish_reason": ""}]}) for t in "ab"]
    double.answers = [Answer([*pieces, finish(), DONE])]
    assert text_of(await events_of(double, asking())) == "ab"
    assert (await failure_of(double, Answer(pieces))).reason is Reason.MODEL_UNAVAILABLE


async def test_half_a_character_is_replaced_and_ends_nothing(double):
    half = b'data: {"choices": [{"delta": {"content": "hi \\ud83d"}}]}\n\n'
    double.answers = [Answer([half, finish(), DONE])]
    assert text_of(await events_of(double, asking())) == "hi \ufffd"


_BAD = {
    "bad JSON": Answer([sse("{nonsense")]),
    "JSON that is no object": Answer([sse("[1]")]),
    "no choices": Answer([sse({"hello": 1})]),
    "choices of another shape": Answer([sse({"choices": [3]})]),
    "content of another type": Answer([sse({"choices": [{"delta": {"content": 5}}]})]),
    "tool calls of another shape": Answer([delta(tool_calls=[{"function": 3}])]),
    "200 with an error body": Answer(
        [b'{"error": {"message": "secret path /x"}}'], content_type="application/json"
    ),
    "an error in the stream": Answer([sse({"error": {"message": "secret path /x"}})]),
    "a web page": Answer([b"<html>hello</html>"], content_type="text/html"),
    "an empty reply": Answer([finish(), DONE]),
    "a line without end": Answer([b"data: " + b"x" * (1 << 16)], forever=True),
}


@pytest.mark.parametrize("name", _BAD)
async def test_nonsense_becomes_one_clean_error_without_the_servers_words(double, name):
    error = await failure_of(double, _BAD[name])
    assert error.reason is Reason.MODEL_BAD_RESPONSE
    assert error.metadata["model"] == "openai/tiny"
    assert "secret" not in str(error)


_CUT = {
    "a stream that ends early": Answer([delta("Hel")]),
    "a connection that is cut": Answer([delta("Hel")], cut=True),
    "nothing but the end mark": Answer([DONE]),
    "an empty body": Answer([]),
}


@pytest.mark.parametrize("name", _CUT)
async def test_an_answer_that_breaks_off_makes_the_model_unavailable(double, name):
    assert (await failure_of(double, _CUT[name])).reason is Reason.MODEL_UNAVAILABLE


async def test_a_reply_that_does_not_end_is_stopped(double, monkeypatch):
    monkeypatch.setattr("services.models.openai.wire.MAX_REPLY_BYTES", 1 << 16)
    error = await failure_of(double, Answer([delta("x" * 4096)], forever=True))
    assert error.reason is Reason.MODEL_BAD_RESPONSE
    await asyncio.wait_for(double.hung_up.wait(), 30)


async def test_silence_after_some_text_is_noticed_although_comments_go_on(double):
    error = await failure_of(
        double, Answer([delta("Hel"), b": still here\n\n"], forever=True), timeout_s=0.2
    )
    assert error.reason is Reason.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b"{}", Reason.MODEL_REFUSED),
        (401, b"{}", Reason.MODEL_REFUSED),
        (400, b'{"error": {"code": "context_length_exceeded"}}', Reason.CONTEXT_TOO_LONG),
        (400, b'{"error": {"type": "exceed_context_size_error"}}', Reason.CONTEXT_TOO_LONG),
        (429, b"{}", Reason.OVERLOADED),
        (500, b"{}", Reason.MODEL_UNAVAILABLE),
        (503, b"<html>", Reason.MODEL_UNAVAILABLE),
    ],
)
async def test_each_error_status_has_its_reason(double, status, body, reason):
    answer = Answer([body], status=status, content_type="application/json")
    assert (await failure_of(double, answer)).reason is reason


async def test_an_overloaded_server_says_when_to_try_again(double):
    answer = Answer([b"{}"], status=429, headers=[("Retry-After", "7")])
    assert (await failure_of(double, answer)).retry_after_s == 7.0


async def test_failures_before_the_first_text_are_tried_again(double):
    away = Answer([b"{}"], status=503)
    double.answers = [away, Answer([sse("{nonsense")]), away, reply("Fourth")]
    assert text_of(await events_of(double, asking(), retries=3)) == "Fourth"
    assert len(double.requests) == 4


async def test_a_failure_after_the_first_text_is_not_tried_again(double):
    error = await failure_of(double, Answer([delta("Hel")], cut=True), retries=3)
    assert error.reason is Reason.MODEL_UNAVAILABLE
    assert len(double.requests) == 1


async def test_a_connection_closed_without_a_word_is_replaced_by_another_at_once(double):
    double.answers = [Answer(status=0), reply("Yes")]
    assert text_of(await events_of(double, asking(), retries=0)) == "Yes"
    error = await failure_of(double, Answer(status=0), retries=0)
    assert error.reason is Reason.MODEL_UNAVAILABLE


async def test_a_refusal_is_not_tried_again(double):
    await failure_of(double, Answer([b"{}"], status=400), retries=3)
    assert len(double.requests) == 1


async def test_without_time_for_another_try_the_first_error_stands(double):
    double.answers = [Answer([b"{}"], status=503)]
    async with backend_of(double, retries=3) as backend:
        with deadline_scope(1.9), pytest.raises(AppError):
            async for _ in backend.generate(asking(), backend.models()[0]):
                pass
    assert len(double.requests) == 1


async def test_a_server_that_refuses_the_usage_option_is_asked_without_it(double):
    refusal = Answer([b"unknown field stream_options"], status=400)
    double.answers = [refusal, Answer([delta("Yes"), finish(), DONE])]
    assert text_of(await events_of(double, asking(), retries=1)) == "Yes"
    assert "stream_options" not in double.requests[1]


async def test_closing_the_stream_hangs_up_on_the_server(double):
    double.answers = [Answer([delta("Hel")], hold=True)]
    async with backend_of(double) as backend:
        async with aclosing(backend.generate(asking(), backend.models()[0])) as events:
            assert await anext(events) == Text("Hel")
        await asyncio.wait_for(double.hung_up.wait(), 30)


async def test_cancelling_the_consumer_hangs_up_on_the_server(double):
    double.answers = [Answer([], hold=True)]
    async with backend_of(double) as backend:
        stream = backend.generate(asking(), backend.models()[0])
        task = asyncio.create_task(anext(stream))
        while not double.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(double.hung_up.wait(), 30)


async def test_more_than_the_queue_holds_is_refused_at_once(double):
    double.answers = [Answer([delta("Hel")], hold=True)]
    async with backend_of(double, concurrency=1, queue=0) as backend:
        card = backend.models()[0]
        async with aclosing(backend.generate(asking(), card)) as first:
            await anext(first)
            with pytest.raises(AppError) as caught:
                await anext(backend.generate(asking(), card))
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s is not None


async def test_the_models_are_those_the_server_lists_with_what_it_says_of_them(double):
    double.models = [
        {"id": "a", "max_model_len": 10},
        {"id": "b", "meta": {"n_ctx_train": 20, "n_params": 134_000_000}},
        {"id": "c", "meta": "odd", "context_length": "long"},
    ]
    async with backend_of(double) as backend:
        cards = backend.models()
    assert [(card.id, card.context_length, card.parameters) for card in cards] == [
        ("openai/a", 10, 0),
        ("openai/b", 20, 134_000_000),
        ("openai/c", 0, 0),
    ]


async def test_a_named_model_is_offered_even_by_a_server_without_a_list(double):
    double.models_status = 404
    async with backend_of(double, model="mine") as backend:
        assert [(card.id, card.state) for card in backend.models()] == [
            ("openai/mine", State.READY)
        ]


async def test_a_server_that_appears_later_is_picked_up(double):
    await double.stop()
    async with backend_of(double, model="tiny") as backend:
        assert backend.models()[0].state is State.AWAY
        probing = asyncio.create_task(backend.keep_probing())
        await double.start()
        async with asyncio.timeout(30):
            while backend.models()[0].state is not State.READY:
                await asyncio.sleep(0.01)
        probing.cancel()


async def test_a_server_that_goes_away_is_said_to_be_away_after_the_failed_call(double):
    async with backend_of(double) as backend:
        card = backend.models()[0]
        await double.stop()
        with pytest.raises(AppError) as caught:
            await anext(backend.generate(asking(), card))
        assert caught.value.reason is Reason.MODEL_UNAVAILABLE
        assert backend.models()[0].state is State.AWAY


async def test_counts_come_from_the_usage_piece_even_after_the_finish(double):
    double.answers = [Answer([delta("A"), finish(), USAGE], hold=True)]
    events = await events_of(double, asking())
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(11, 3, 0)
