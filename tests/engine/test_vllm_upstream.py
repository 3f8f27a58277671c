"""A real OpenAI-compatible upstream: vLLM's own HTTP server on a CPU with a tiny model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from services.models.config import Upstream
from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    ModelCard,
    State,
    Text,
    ToolCall,
)
from services.models.openai.backend import OpenAIBackend
from services.models.server import open_upstream
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from tests.support.engines import SCHEMA, START_S, TOOL, asked, tiny_settings
from tests.support.tiny_model import COUNT, COUNTED, ON_AND_ON, PERSON, WEATHER
from tests.support.vllm_server import VllmServer
from tests.support.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmServer]:
    """One server for all tests here: they leave it whole."""
    running = VllmServer(tiny_settings(tiny), tmp_path_factory.mktemp("names"))
    await running.start()
    try:
        yield running
    finally:
        await running.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(server: VllmServer) -> AsyncIterator[OpenAIBackend]:
    """Its upstream."""
    async with AsyncExitStack() as stack:
        told = Upstream(url=f"{server.root}/v1", timeout_s=PATIENCE_S)
        yield await open_upstream(told, stack)


async def ready(backend: OpenAIBackend) -> ModelCard:
    """The card of the server's model once it is found."""

    async def card() -> ModelCard | None:
        return next((c for c in backend.models() if c.state is State.READY), None)

    found = await until(card, "the server is found", START_S)
    assert found is not None
    return found


async def answer(backend: OpenAIBackend, request: Generation) -> tuple[str, Finish, list[Event]]:
    """The whole text of a reply, how it ended, and its events."""
    card = await ready(backend)
    with deadline_scope(PATIENCE_S):
        events = [event async for event in backend.generate(request, card)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return "".join(e.text for e in events if isinstance(e, Text)), finish, events


async def test_the_model_that_the_server_has_is_found_with_its_context(
    backend: OpenAIBackend,
) -> None:
    card = await ready(backend)
    assert (card.id, card.context_length) == ("openai/tiny", 1024)


async def test_a_reply_is_streamed_and_the_tokens_are_the_servers_own_count(
    backend: OpenAIBackend,
) -> None:
    text, finish, events = await answer(backend, asked(COUNT))
    assert text == COUNTED
    assert finish.reason is FinishReason.STOP
    assert len(events) > 3
    assert finish.usage.prompt_tokens > 5
    assert finish.usage.completion_tokens >= len(COUNTED.split())


async def test_a_stop_string_ends_a_reply_and_is_not_part_of_it(backend: OpenAIBackend) -> None:
    text, finish, _ = await answer(backend, asked(COUNT, stop=("five",)))
    assert text == "one two three four "
    assert finish.reason is FinishReason.STOP


async def test_a_reply_follows_a_json_schema(backend: OpenAIBackend) -> None:
    text, _, _ = await answer(backend, asked(PERSON, 40, response_schema=SCHEMA))
    assert json.loads(text)["age"] in (1, 2)


async def test_a_model_that_is_given_tools_calls_them(backend: OpenAIBackend) -> None:
    _, finish, events = await answer(backend, asked(WEATHER, 64, tools=(TOOL,)))
    (call,) = (event for event in events if isinstance(event, ToolCall))
    assert (call.name, json.loads(call.arguments_json)) == ("weather", {"city": "Leeds"})
    assert finish.reason is FinishReason.TOOL_CALLS


async def test_log_probabilities_are_told_for_every_token_of_the_text(
    backend: OpenAIBackend,
) -> None:
    text, _, events = await answer(backend, asked(COUNT, logprobs=2))
    places = [p for event in events if isinstance(event, Text) for p in event.logprobs]
    assert "".join(place.token for place in places).startswith(text)
    for place in places:
        assert place.likeliest[0].token == place.token
        assert place.likeliest[1].logprob <= place.logprob <= 0


async def test_a_prompt_that_does_not_fit_is_refused(backend: OpenAIBackend) -> None:
    with pytest.raises(AppError) as raised:
        await answer(backend, asked("word " * 2000))
    assert raised.value.reason is Reason.CONTEXT_TOO_LONG


async def test_closing_a_stream_stops_the_server(
    backend: OpenAIBackend, server: VllmServer
) -> None:
    """Before the reply, which is the same each time, has all its tokens."""
    card, request = await ready(backend), asked(ON_AND_ON, 900)
    _, finish, _ = await answer(backend, request)
    before = await server.generated()
    with deadline_scope(PATIENCE_S):
        async with aclosing(backend.generate(request, card)) as events:
            await anext(events)
            assert await server.running() == 1

    async def none() -> bool:
        return not await server.running()

    await until(none, "the server stops", PATIENCE_S)
    assert 0 < await server.generated() - before < finish.usage.completion_tokens
