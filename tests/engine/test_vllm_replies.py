"""Replies of a real vLLM on a CPU, in its worker, behind the contract of the models service."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from services.models.domain import Event, FinishReason, Text, ToolCall
from services.models.engines.backend import EngineBackend
from services.models.engines.engine import SleepLevel
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from tests.support.engines import (
    SCHEMA,
    TOOL,
    answer,
    asked,
    failure,
    idle,
    ready,
    serving,
    tiny_settings,
)
from tests.support.tiny_model import COUNT, COUNTED, INVENTED, ON_AND_ON, PERSON, WEATHER
from tests.support.waiting import PATIENCE_S, overdue, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = asked(ON_AND_ON, 950)
# More than can be on their way at once; the long reply has over 200.
_FEW_PIECES = 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(
    tiny: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineBackend]:
    """One ready engine for all tests here: they leave it whole."""
    model = tiny_settings(tiny, lora_adapters={"terse": str(adapter)}, lora_rank=8)
    async with serving(model, tmp_path_factory.mktemp("e")) as made:
        await ready(made)
        yield made


async def test_a_loaded_model_says_what_it_can(backend: EngineBackend) -> None:
    (card,) = backend.models()
    assert (card.id, card.backend, card.context_length) == ("vllm/tiny", "vllm", 1024)
    assert (card.tools, card.json_schema, card.logprobs, card.embeds) == (True, True, True, False)
    assert card.lora_adapters == ("terse",)
    assert 100_000 < card.parameters < 1_000_000


async def test_a_reply_is_streamed_piece_by_piece_and_its_tokens_counted(
    backend: EngineBackend,
) -> None:
    text, finish, events = await answer(backend, asked(COUNT))
    assert text == COUNTED
    assert (finish.reason, finish.model) == (FinishReason.STOP, "vllm/tiny")
    assert len(events) > 3
    assert finish.usage.prompt_tokens > 5
    assert finish.usage.completion_tokens >= len(COUNTED.split())


async def test_a_reply_ends_where_it_was_told_to(backend: EngineBackend) -> None:
    _, finish, _ = await answer(backend, asked(ON_AND_ON, max_tokens=7))
    assert finish.reason is FinishReason.LENGTH
    assert finish.usage.completion_tokens == 7


async def test_the_beginning_that_prompts_share_is_read_once(backend: EngineBackend) -> None:
    prompt = "word " * 200
    await answer(backend, asked(prompt, max_tokens=1))
    _, again, _ = await answer(backend, asked(prompt + "more", max_tokens=1))
    assert again.usage.cached_tokens >= 128
    assert again.usage.cached_tokens < again.usage.prompt_tokens


async def test_a_stop_string_ends_a_reply_and_is_not_part_of_it(backend: EngineBackend) -> None:
    text, finish, _ = await answer(backend, asked(COUNT, stop=("five",)))
    assert text == "one two three four "
    assert finish.reason is FinishReason.STOP


async def test_the_same_seed_gives_the_same_reply_and_another_one_does_not(
    backend: EngineBackend,
) -> None:
    def request(seed: int) -> object:
        return asked("Say anything at all.", temperature=1.5, seed=seed)

    texts = [(await answer(backend, request(seed)))[0] for seed in (1, 1, 2)]  # type: ignore[arg-type]
    assert texts[0] == texts[1] != texts[2]


async def test_a_reply_follows_a_json_schema(backend: EngineBackend) -> None:
    """Also where it would write something else: the age that it has learnt is not allowed."""
    assert (await answer(backend, asked(PERSON, 40)))[0] == INVENTED
    request = asked(PERSON, 40, response_schema=SCHEMA)
    text, finish, _ = await answer(backend, request)
    person = json.loads(text)
    assert person.keys() == {"name", "age"}
    assert person["age"] in (1, 2)
    assert finish.reason is FinishReason.STOP


async def test_a_schema_that_is_none_is_refused_and_the_engine_lives_on(
    backend: EngineBackend,
) -> None:
    error = await failure(backend, asked("Hello.", response_schema='{"type": "no such type"}'))
    assert error.reason is Reason.MODEL_REFUSED
    await answer(backend, asked(COUNT))


async def test_a_model_that_is_given_tools_calls_them(backend: EngineBackend) -> None:
    text, finish, events = await answer(backend, asked(WEATHER, 64, tools=(TOOL,)))
    (call,) = (event for event in events if isinstance(event, ToolCall))
    assert (call.name, json.loads(call.arguments_json)) == ("weather", {"city": "Leeds"})
    assert call.id
    assert text == ""
    assert finish.reason is FinishReason.TOOL_CALLS


async def test_log_probabilities_are_told_for_every_token_of_the_text(
    backend: EngineBackend,
) -> None:
    text, _, events = await answer(backend, asked(COUNT, logprobs=2))
    places = [p for event in events if isinstance(event, Text) for p in event.logprobs]
    assert "".join(place.token for place in places).startswith(text)
    for place in places:
        assert len(place.likeliest) == 2
        # The reply is greedy: what was chosen is what was likeliest.
        assert place.likeliest[0].logprob == place.logprob
        assert place.likeliest[1].logprob <= place.logprob <= 0
    assert math.exp(places[0].logprob) > 0.5


async def test_a_lora_adapter_is_used_for_the_request_that_names_it(
    backend: EngineBackend,
) -> None:
    plain, adapted, again = [
        (await answer(backend, asked(COUNT, lora_adapter=name)))[0] for name in ("", "terse", "")
    ]
    assert plain == again == COUNTED
    assert adapted != plain


async def test_an_adapter_that_is_not_there_is_refused(backend: EngineBackend) -> None:
    error = await failure(backend, asked(COUNT, lora_adapter="unknown"))
    assert error.reason is Reason.MODEL_LACKS_ABILITY
    assert error.metadata == {"model": "vllm/tiny", "ability": "lora_adapter"}


async def test_a_tool_that_must_be_called_is_more_than_the_engine_can_promise(
    backend: EngineBackend,
) -> None:
    error = await failure(backend, asked(WEATHER, tools=(TOOL,), tool_choice="required"))
    assert error.reason is Reason.MODEL_LACKS_ABILITY
    assert error.metadata == {"model": "vllm/tiny", "ability": "tool_choice"}


async def test_a_prompt_that_does_not_fit_is_refused(backend: EngineBackend) -> None:
    error = await failure(backend, asked("word " * 2000))
    assert error.reason is Reason.CONTEXT_TOO_LONG
    assert error.metadata == {"model": "vllm/tiny"}


async def test_tokens_are_counted_by_the_models_own_tokenizer(backend: EngineBackend) -> None:
    words, none = await backend.count_tokens([COUNTED, ""])
    assert 9 <= words < len(COUNTED)
    assert none == 0


@asynccontextmanager
async def stopping(backend: EngineBackend) -> AsyncIterator[None]:
    """What is begun here with `LONG` must stop long before a reply like it that was begun earlier.

    Both get a token at each step: one that nobody stopped would run as long as the other.
    """
    (card,) = backend.models()
    pieces: list[Event] = []

    async def read() -> None:
        async for event in backend.generate(LONG, card):
            pieces.append(event)

    async def begun() -> bool:
        return bool(pieces)

    async def alone() -> bool:
        return (await backend.load()).running <= 1

    with deadline_scope(PATIENCE_S):
        beside = asyncio.create_task(read())
    await until(begun, "the reply beside begins")
    yield
    await until(alone, "the engine stops")
    seen = len(pieces)
    await beside
    assert len(pieces) - seen > _FEW_PIECES
    await idle(backend)


async def test_closing_a_stream_stops_the_engine(backend: EngineBackend) -> None:
    (card,) = backend.models()
    async with stopping(backend):
        async with aclosing(backend.generate(LONG, card)) as events:
            await anext(events)
            assert (await backend.load()).running == 2


async def test_a_deadline_that_passes_stops_the_engine(backend: EngineBackend) -> None:
    (card,) = backend.models()
    began = asyncio.Event()

    async def late() -> None:
        async for _ in backend.generate(LONG, card):
            began.set()

    async with stopping(backend):
        error = await overdue(late, began)
    assert error.reason is Reason.DEADLINE_EXCEEDED


async def test_more_requests_than_places_are_refused_at_once(backend: EngineBackend) -> None:
    """Four run and two wait in the engine; of nine that come together three are refused."""
    replies = await asyncio.gather(
        *(answer(backend, asked(ON_AND_ON, 60)) for _ in range(9)), return_exceptions=True
    )
    refused = [reply for reply in replies if isinstance(reply, AppError)]
    assert [error.reason for error in refused] == [Reason.OVERLOADED] * 3
    assert all(error.retry_after_s for error in refused)


async def test_of_those_that_wait_the_lowest_priority_number_goes_first(
    backend: EngineBackend,
) -> None:
    (card,) = backend.models()
    began: list[int] = []

    async def wait_for(priority: int) -> None:
        async with aclosing(
            backend.generate(asked(ON_AND_ON, 4, priority=priority), card)
        ) as events:
            await anext(events)
            began.append(priority)
            async for _ in events:
                pass

    running = [asyncio.create_task(answer(backend, asked(ON_AND_ON, 600))) for _ in range(4)]
    while (await backend.load()).running < 4:
        assert not any(task.done() for task in running)
    late = asyncio.create_task(wait_for(5))
    while (await backend.load()).waiting < 1:
        assert not late.done()
    early = asyncio.create_task(wait_for(-5))
    await asyncio.gather(*running, late, early)
    assert began == [-5, 5]


async def test_what_a_model_of_text_cannot_do_is_refused_as_such(backend: EngineBackend) -> None:
    for call in (backend.embed(["a"]), backend.sleep(SleepLevel.KEEP_WEIGHTS), backend.wake()):
        with pytest.raises(AppError) as raised:
            await call
        assert raised.value.reason is Reason.MODEL_LACKS_ABILITY


async def test_a_second_model_beside_the_first_makes_vectors(
    backend: EngineBackend, tiny: Path, tmp_path: Path
) -> None:
    """Two engines at once, each in a worker of its own."""
    model = tiny_settings(tiny, name="vectors", embeds=True)
    async with serving(model, tmp_path / "e", number=1) as vectors:
        card = await ready(vectors)
        assert (card.embeds, card.generative, card.tools) == (True, False, False)
        (text, _, _), made = await asyncio.gather(
            answer(backend, asked(COUNT)), vectors.embed(["a boat", "a bird", "a boat"])
        )
        assert text == COUNTED
        boat, bird, again = (np.frombuffer(vector.data, "<f4") for vector in made)
        assert np.linalg.norm(boat) == pytest.approx(1, abs=1e-5)
        assert boat @ again == pytest.approx(1, abs=1e-4)
        assert boat @ bird < 0.9999
        # More than the engine has places for: they take turns.
        assert len(await vectors.embed(["a boat"] * 20)) == 20
        assert all(vector.tokens > 0 for vector in made)
        (cut,) = await vectors.embed(["a boat " * 2000])
        assert (cut.truncated, cut.tokens) == (True, card.context_length)
        error = await failure(vectors, asked("Hello."))
        assert error.reason is Reason.MODEL_LACKS_ABILITY
