"""llama.cpp with a small real model, in its worker, behind the contract of the models service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

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
)
from services.models.engines import llamacpp
from services.models.engines.backend import EngineBackend
from services.models.engines.engine import CannotLoad
from services.models.engines.settings import LlamaCppModel
from services.runtime.errors import AppError, Reason
from services.runtime.process import private_folder
from services.runtime.supervisor import WorkerLimits
from tests.support.gguf import head, small_model
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONTEXT = 1024
SOON = WorkerLimits(heartbeat_interval_s=0.2, heartbeat_timeout_s=1.0)


@asynccontextmanager
async def engine(
    path: Path, sockets: Path, limits: WorkerLimits | None = None, **settings: int
) -> AsyncIterator[EngineBackend]:
    """A running backend for `path`, ready or not."""
    # One thread: several wait for each other in loops, which a busy machine makes very slow.
    common = {"context_length": CONTEXT, "slots": 2, "queue": 1, "batch": 32, "threads": 1}
    model = LlamaCppModel.model_validate({"path": path, "name": "tiny"} | common | settings)
    backend = EngineBackend(model, private_folder(sockets), limits=limits)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def ready(backend: EngineBackend) -> ModelCard:
    """The card of the backend's model once it is ready."""

    async def card() -> ModelCard | None:
        (found,) = backend.models()
        return found if found.state is State.READY else None

    found = await until(card, "the engine is ready")
    assert found is not None
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineBackend]:
    """One ready engine for the tests that leave it whole."""
    async with engine(small_model(), tmp_path_factory.mktemp("e")) as made:
        await ready(made)
        yield made


def asked(
    text: str, max_tokens: int = 24, stop: tuple[str, ...] = (), schema: str = ""
) -> Generation:
    """A request for a reply that is the same each time."""
    sampling = Sampling(temperature=0, seed=1, stop=stop, max_tokens=max_tokens)
    return Generation((Message(Role.USER, text),), sampling=sampling, response_schema=schema)


async def answer(backend: EngineBackend, request: Generation) -> tuple[str, Finish, list[Event]]:
    """The whole text of a reply, how it ended, and its events."""
    (card,) = backend.models()
    events = [event async for event in backend.generate(request, card)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return "".join(e.text for e in events if isinstance(e, Text)), finish, events


async def failure(backend: EngineBackend, request: Generation) -> AppError:
    """What a request fails with."""
    with pytest.raises(AppError) as raised:
        await answer(backend, request)
    return raised.value


async def test_a_loaded_model_says_what_it_can(backend: EngineBackend) -> None:
    (card,) = backend.models()
    assert (card.id, card.backend) == ("llamacpp/tiny", "llamacpp")
    assert (card.context_length, card.tools, card.json_schema) == (CONTEXT, True, True)


async def test_a_reply_is_streamed_piece_by_piece_and_its_tokens_counted(
    backend: EngineBackend,
) -> None:
    text, finish, events = await answer(backend, asked("Name three colours."))
    assert text.strip()
    assert len(events) > 5
    assert (finish.reason, finish.model) == (FinishReason.LENGTH, "llamacpp/tiny")
    assert finish.usage.completion_tokens == 24
    assert finish.usage.prompt_tokens > 10
    _, again, _ = await answer(backend, asked("Name three colours."))
    assert again.usage.cached_tokens > 0


async def test_a_stop_string_ends_a_reply_and_is_not_part_of_it(backend: EngineBackend) -> None:
    whole, _, _ = await answer(backend, asked("Count from 1 to 9."))
    stop = whole.split()[3]
    text, finish, _ = await answer(backend, asked("Count from 1 to 9.", stop=(stop,)))
    assert finish.reason is FinishReason.STOP
    assert text == whole[: whole.index(stop)]


async def test_a_reply_follows_a_json_schema(backend: EngineBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"enum": [1, 2]}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text, finish, _ = await answer(
        backend, asked("Invent a person.", max_tokens=80, schema=json.dumps(schema))
    )
    person = json.loads(text)
    assert person.keys() == {"name", "age"}
    assert person["age"] in (1, 2)
    assert finish.reason is FinishReason.STOP


async def test_log_probabilities_are_told_for_every_token_of_the_text(
    backend: EngineBackend,
) -> None:
    """The reply is greedy: what was chosen is what was likeliest."""
    text, _, events = await answer(backend, replace(asked("Say hello."), logprobs=2))
    places = [p for event in events if isinstance(event, Text) for p in event.logprobs]
    assert "".join(place.token for place in places).startswith(text)
    for place in places:
        assert place.likeliest[0].token == place.token
        assert place.likeliest[1].logprob <= place.logprob <= 0


async def test_a_model_of_vectors_makes_them_and_no_replies(tmp_path: Path) -> None:
    """Vectors have unit length, and the same text has the same one."""
    async with engine(small_model(), tmp_path / "e", embeds=True, context_length=128) as vectors:
        card = await ready(vectors)
        assert (card.embeds, card.generative, card.tools) == (True, False, False)
        made = await vectors.embed(["a boat", "a bird", "a boat"])
        boat, bird, again = (np.frombuffer(vector.data, "<f4") for vector in made)
        assert np.linalg.norm(boat) == pytest.approx(1, abs=1e-5)
        assert boat @ again == pytest.approx(1, abs=1e-4)
        assert boat @ bird < 0.9999
        assert all(vector.tokens > 0 for vector in made)
        fine, cut = await vectors.embed(["fine", "word " * 200])
        assert (fine.truncated, cut.truncated, cut.tokens) == (False, True, 128)
        assert (await failure(vectors, asked("Hello."))).reason is Reason.MODEL_LACKS_ABILITY


async def test_a_model_of_text_makes_no_vectors(backend: EngineBackend) -> None:
    with pytest.raises(AppError) as raised:
        await backend.embed(["a boat"])
    assert raised.value.reason is Reason.MODEL_LACKS_ABILITY


async def test_tokens_are_counted_by_the_models_own_tokenizer(backend: EngineBackend) -> None:
    words, none = await backend.count_tokens(["one two three four", ""])
    assert (words, none) == (4, 0)


async def test_a_prompt_that_does_not_fit_is_refused(backend: EngineBackend) -> None:
    error = await failure(backend, asked("word " * CONTEXT))
    assert error.reason is Reason.CONTEXT_TOO_LONG
    assert error.metadata == {"model": "llamacpp/tiny"}


async def test_a_schema_that_is_none_is_refused(backend: EngineBackend) -> None:
    error = await failure(backend, asked("Hello.", schema='{"type": "no such type"}'))
    assert error.reason is Reason.MODEL_REFUSED
    await answer(backend, asked("Hello."))


@pytest.mark.parametrize(
    ("parameters", "batch"), [(135_000_000, 256), (500_000_000, 80), (8_000_000_000, 32)]
)
async def test_the_larger_a_model_the_smaller_the_batches_of_a_prompt(
    parameters: int, batch: int
) -> None:
    assert llamacpp.default_batch(parameters) == batch


async def test_a_base_model_is_refused_as_a_model_to_chat_with_and_not_as_one_of_vectors(
    tmp_path: Path,
) -> None:
    """Without a chat template its prompts would be made up."""
    base = tmp_path / "base.gguf"
    base.write_bytes(head({"general.architecture": "llama"}) + b"\0" * 64)
    with pytest.raises(CannotLoad, match="has no chat template"):
        await llamacpp.load(LlamaCppModel(path=base), lambda _: None)
    with pytest.raises(CannotLoad, match="cannot load this llama model"):
        await llamacpp.load(LlamaCppModel(path=base, embeds=True), lambda _: None)


class Counting:
    """The native server of an engine, with its calls back counted."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.pieces = 0

    def handle_chat_completions(self, body: object, take: Callable[[object], bool]) -> None:
        def counted(piece: object) -> bool:
            self.pieces += 1
            return take(piece)

        self._server.handle_chat_completions(body, counted)


@pytest.mark.parametrize("prompt", ["A long story.", "word " * (CONTEXT - 200)])
async def test_leaving_a_reply_stops_the_engine_at_its_next_piece(prompt: str) -> None:
    """While it writes, and while it reads a prompt: there is a piece for each batch of that."""
    model = LlamaCppModel(path=small_model(), context_length=CONTEXT, threads=1, batch=32)
    loaded = await llamacpp.load(model, lambda _: None)
    counting = Counting(loaded._server)
    loaded._server = counting
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(loaded.generate(asked(prompt, max_tokens=150), begun.set)) as events:
            async for _ in events:
                pass

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(60):
            await begun.wait()
            reading.cancel()
            await asyncio.wait({reading})
        # One is read here while the next is made; all of them would be 25 and more.
        assert 1 <= counting.pieces <= 8
    finally:
        await loaded.close()


async def test_more_requests_than_slots_and_queue_are_refused_at_once(
    backend: EngineBackend,
) -> None:
    replies = await asyncio.gather(
        *(answer(backend, asked("A story.", max_tokens=8)) for _ in range(6)),
        return_exceptions=True,
    )
    refused = [reply for reply in replies if isinstance(reply, AppError)]
    assert [error.reason for error in refused] == [Reason.OVERLOADED] * 3
    assert all(error.retry_after_s for error in refused)


@pytest.mark.parametrize("signum", ["SIGKILL", "SIGSTOP"])
async def test_an_engine_that_dies_or_freezes_ends_its_streams_and_comes_back(
    tmp_path: Path, signum: str
) -> None:
    """The reader gets a retryable error, and the next request is answered by a new worker."""
    async with engine(small_model(), tmp_path / "e", SOON) as backend:
        card = await ready(backend)
        old = backend.worker_pid
        assert old is not None
        async with aclosing(backend.generate(asked("A story.", max_tokens=900), card)) as events:
            await anext(events)
            os.kill(old, getattr(signal, signum))
            with pytest.raises(AppError) as raised:
                async for _ in events:
                    pass
        assert raised.value.reason is Reason.MODEL_UNAVAILABLE
        assert raised.value.retry_after_s

        async def replaced() -> bool:
            return backend.worker_pid not in (None, old)

        await until(replaced, "another worker")
        await ready(backend)
        text, _, _ = await answer(backend, asked("Name three colours."))
        assert text.strip()


async def test_a_file_that_cannot_be_loaded_is_named_in_the_list_of_models(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    with small_model().open("rb") as whole:
        broken.write_bytes(whole.read(1_000_000))
    async with engine(broken, tmp_path / "e", SOON) as backend:

        async def why() -> str:
            (card,) = backend.models()
            return card.detail if card.state is State.AWAY else ""

        async def told() -> bool:
            return "cut off" in await why()

        await until(told, "the reason is told")
        assert await why() == f"{broken} is cut off: fetch it again"
        error = await failure(backend, asked("Hello."))
        assert error.reason is Reason.MODEL_UNAVAILABLE


async def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(
    tmp_path: Path,
) -> None:
    huge = LlamaCppModel(path=small_model(), context_length=1_000_000, slots=64)
    backend = EngineBackend(huge, private_folder(tmp_path / "e"), limits=SOON)
    await backend.start()
    try:

        async def told() -> bool:
            return "GB are free" in backend.models()[0].detail

        await until(told, "the reason is told")
        assert backend.models()[0].state is State.AWAY
    finally:
        await backend.close()
