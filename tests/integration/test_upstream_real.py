"""A real OpenAI-compatible upstream: llama.cpp's own HTTP server with a small real model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio

from services.models.config import Upstream
from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    Message,
    ModelCard,
    Role,
    Sampling,
    State,
    Text,
    ToolCall,
    ToolSpec,
)
from services.models.openai import backend as backend_module
from services.models.openai.backend import OpenAIBackend
from services.models.server import open_upstream
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from tests.support.gguf import small_model
from tests.support.llama_server import LlamaServer
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
CONTEXT = 1024
SLOTS = 2
PATIENCE_S = 120.0
MODEL = f"openai/{small_model().stem}"


@asynccontextmanager
async def upstream(server: LlamaServer, **settings: int) -> AsyncIterator[OpenAIBackend]:
    """A backend that looks for the server by itself."""
    told = Upstream(url=server.url, timeout_s=PATIENCE_S, **settings)
    async with AsyncExitStack() as stack:
        yield await open_upstream(told, stack)


async def ready(backend: OpenAIBackend) -> ModelCard:
    """The card of the server's model once it is ready."""

    async def card() -> ModelCard | None:
        return next((c for c in backend.models() if c.state is State.READY), None)

    found = await until(card, "the server is found")
    assert found is not None
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LlamaServer]:
    """One server for the tests that leave it whole."""
    async with LlamaServer(small_model(), slots=SLOTS, context=CONTEXT) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(server: LlamaServer) -> AsyncIterator[OpenAIBackend]:
    """Its upstream, ready."""
    async with upstream(server) as made:
        await ready(made)
        yield made


def asked(text: str, max_tokens: int = 24, stop: tuple[str, ...] = ()) -> Generation:
    """A request for a reply that is the same each time."""
    sampling = Sampling(temperature=0, seed=1, stop=stop, max_tokens=max_tokens)
    return Generation((Message(Role.USER, text),), sampling=sampling)


async def answer(backend: OpenAIBackend, request: Generation) -> tuple[str, Finish, list[Event]]:
    """The whole text of a reply, how it ended, and its events."""
    card = await ready(backend)
    with deadline_scope(PATIENCE_S):
        events = [event async for event in backend.generate(request, card)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return "".join(e.text for e in events if isinstance(e, Text)), finish, events


async def failure(backend: OpenAIBackend, request: Generation) -> AppError:
    """What a request fails with."""
    with pytest.raises(AppError) as raised:
        await answer(backend, request)
    return raised.value


async def idle(server: LlamaServer) -> None:
    """Return when all slots of the server are free."""

    async def none_busy() -> bool:
        return not await server.running()

    await until(none_busy, "the server's slots are free")


async def test_the_model_that_the_server_has_is_found_with_its_context(
    backend: OpenAIBackend,
) -> None:
    card = await ready(backend)
    assert (card.id, card.backend, card.context_length) == (MODEL, "openai", CONTEXT)


async def test_words_come_one_by_one_and_the_tokens_are_the_servers_own_count(
    backend: OpenAIBackend,
) -> None:
    text, finish, events = await answer(backend, asked("Name three colours."))
    assert text.strip()
    assert len(events) > 5
    assert (finish.reason, finish.model) == (FinishReason.LENGTH, MODEL)
    assert finish.usage.completion_tokens == 24
    assert finish.usage.prompt_tokens > 10
    _, again, _ = await answer(backend, asked("Name three colours."))
    assert again.usage.cached_tokens > 0


async def test_a_stop_string_ends_a_reply_and_is_not_part_of_it(backend: OpenAIBackend) -> None:
    whole, _, _ = await answer(backend, asked("Count from 1 to 9."))
    stop = whole.split()[3]
    text, finish, _ = await answer(backend, asked("Count from 1 to 9.", stop=(stop,)))
    assert finish.reason is FinishReason.STOP
    assert text == whole[: whole.index(stop)]


async def test_a_reply_follows_a_json_schema(backend: OpenAIBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"enum": [1, 2]}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    request = Generation(
        (Message(Role.USER, "Invent a person."),),
        sampling=Sampling(temperature=0, seed=1, max_tokens=80),
        response_schema=json.dumps(schema),
    )
    text, finish, _ = await answer(backend, request)
    person = json.loads(text)
    assert person.keys() == {"name", "age"}
    assert person["age"] in (1, 2)
    assert finish.reason is FinishReason.STOP


async def test_log_probabilities_are_told_for_every_token_of_the_text(
    backend: OpenAIBackend,
) -> None:
    text, _, events = await answer(backend, replace(asked("Say hello."), logprobs=2))
    places = [p for event in events if isinstance(event, Text) for p in event.logprobs]
    assert "".join(place.token for place in places).startswith(text)
    assert all(len(place.likeliest) == 2 for place in places)


async def test_tools_and_calls_made_before_are_understood(backend: OpenAIBackend) -> None:
    """The small model calls none by itself: the reply is text then."""
    look = ToolSpec("weather", "of a town", '{"type": "object", "properties": {"town": {}}}')
    call = ToolCall("call_1", "weather", '{"town": "Rome"}')
    history = (
        Message(Role.USER, "What is the weather in Rome?"),
        Message(Role.ASSISTANT, "", tool_calls=(call,)),
        Message(Role.TOOL, '{"sky": "clear"}', tool_call_id="call_1"),
    )
    sampling = Sampling(temperature=0, seed=1, max_tokens=16)
    request = Generation(history, sampling=sampling, tools=(look,))
    _, finish, events = await answer(backend, request)
    assert len(events) > 1
    assert finish.usage.prompt_tokens > 10


async def test_a_prompt_that_does_not_fit_is_refused(backend: OpenAIBackend) -> None:
    error = await failure(backend, asked("word " * CONTEXT))
    assert error.reason is Reason.CONTEXT_TOO_LONG
    assert error.metadata == {"model": MODEL}


@pytest.mark.parametrize("prompt", ["A long story.", "word " * (CONTEXT - 200)])
async def test_closing_a_stream_stops_the_server(
    backend: OpenAIBackend, server: LlamaServer, prompt: str
) -> None:
    """While it writes, and while it reads a prompt; its slot is free for the next one."""
    card = await ready(backend)
    async with aclosing(backend.generate(asked(prompt, max_tokens=800), card)) as events:
        with deadline_scope(PATIENCE_S):
            reading = asyncio.ensure_future(anext(events))

        async def begun() -> bool:
            return reading.done() or bool(await server.running())

        await until(begun, "the server works")
        reading.cancel()
        await asyncio.wait({reading})
    await idle(server)
    text, _, _ = await answer(backend, asked("Name three colours."))
    assert text.strip()


async def test_more_replies_than_its_slots_are_all_given(
    backend: OpenAIBackend, server: LlamaServer
) -> None:
    """The server has a queue of its own: the first texts of some come late, but they come."""
    requests = [asked(f"Story {n}.", max_tokens=20) for n in range(3 * SLOTS)]
    replies = await asyncio.gather(*(answer(backend, request) for request in requests))
    assert all(finish.usage.completion_tokens for _, finish, _ in replies)
    assert 1 <= backend.limit <= 8
    await idle(server)


async def test_a_server_that_is_killed_ends_its_streams_and_is_found_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "PROBE_AWAY_S", 0.05)
    async with LlamaServer(small_model()) as server, upstream(server, retries=0) as backend:
        card = await ready(backend)
        async with aclosing(backend.generate(asked("A story.", max_tokens=900), card)) as events:
            await anext(events)
            await server.kill()
            with pytest.raises(AppError) as raised:
                async for _ in events:
                    pass
        assert raised.value.reason is Reason.MODEL_UNAVAILABLE
        assert raised.value.retry_after_s

        async def gone() -> bool:
            return all(card.state is State.AWAY for card in backend.models())

        await until(gone, "the server is seen to be away")
        await server.start()
        text, _, _ = await answer(backend, asked("Name three colours."))
        assert text.strip()
        assert backend.limit < Upstream(url=server.url).concurrency
