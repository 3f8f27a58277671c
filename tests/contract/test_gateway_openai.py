"""OpenAI's own client against the gateway, with real routing behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from echomesh.models.v1 import models_pb2
from services.runtime.channel import MAX_MESSAGE_BYTES
from tests.support.gateway import GatewayWorld, gateway_world, language_models
from tests.support.routing_mesh import FakeModels, finish, hangs, text

HELLO = [{"role": "user", "content": "Hello, who are you?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


async def scripted(
    request: models_pb2.GenerateRequest,
) -> AsyncIterator[models_pb2.GenerateResponse]:
    """Calls the first tool until its result is there; JSON where a schema is asked for."""
    if request.HasField("response_format"):
        yield text('{"city": "Lima", ')
        yield text('"warm": true}')
    elif request.tools and request.messages[-1].role != models_pb2.CHAT_ROLE_TOOL:
        call = models_pb2.ToolCall(id="c1", name="weather", arguments_json='{"city": "Lima"}')
        yield models_pb2.GenerateResponse(tool_call=call)
        end = finish("tiny")
        end.finish.reason = models_pb2.FINISH_REASON_TOOL_CALLS
        yield end
        return
    else:
        yield text("Hello")
        yield text(" there")
    yield finish("tiny")


@dataclass
class Embedders(FakeModels):
    """Models that make vectors; `calls` are the numbers of texts."""

    calls: list[int] = field(default_factory=list)

    async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls.append(len(request.texts))
        found = [models_pb2.Embedding(vector=bytes(16), tokens=1) for _ in request.texts]
        return models_pb2.EmbedResponse(embeddings=found)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GatewayWorld]:
    async with gateway_world(tmp_path, models=language_models(scripted)) as running:
        yield running


async def test_a_reply_comes_whole_with_its_usage(world: GatewayWorld) -> None:
    async with world.client() as client:
        done = await client.chat.completions.create(model="echomesh", messages=HELLO)
    assert (
        done.choices[0].message.content,
        done.choices[0].finish_reason,
    ) == ("Hello there", "stop")
    assert done.usage is not None
    assert (
        done.usage.prompt_tokens,
        done.usage.completion_tokens,
        done.usage.total_tokens,
    ) == (7, 3, 10)
    assert done.model == "tiny"


async def test_a_reply_comes_as_a_stream_with_its_usage(world: GatewayWorld) -> None:
    async with world.client() as client:
        stream = await client.chat.completions.create(
            model="echomesh-standard",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == "Hello there"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10


async def test_the_synchronous_client_works_as_well(world: GatewayWorld) -> None:
    def talk() -> tuple[str | None, str]:
        base_url = f"{world.url}/v1"
        with OpenAI(api_key="key-alice", base_url=base_url, max_retries=0) as client:
            whole = client.chat.completions.create(model="echomesh", messages=HELLO)
            stream = client.chat.completions.create(model="echomesh", messages=HELLO, stream=True)
            parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        return whole.choices[0].message.content, "".join(parts)

    assert await asyncio.to_thread(talk) == ("Hello there", "Hello there")


async def test_a_tool_is_called_and_its_result_is_answered(world: GatewayWorld) -> None:
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Lima?"}]
    async with world.client() as client:
        asked = await client.chat.completions.create(
            model="echomesh", messages=messages, tools=[WEATHER]
        )
        choice = asked.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        call: Any = choice.message.tool_calls[0]
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Lima"}')
        result = {"role": "tool", "tool_call_id": call.id, "content": "warm"}
        messages += [choice.message.model_dump(exclude_none=True), result]
        done = await client.chat.completions.create(
            model="echomesh", messages=messages, tools=[WEATHER]
        )
    assert done.choices[0].message.content == "Hello there"
    prompt = [(m.role, m.content) for m in world.models.requests[-1].messages[1:]]
    assert prompt == [
        (models_pb2.CHAT_ROLE_USER, "How is the weather in Lima?"),
        (models_pb2.CHAT_ROLE_ASSISTANT, ""),
        (models_pb2.CHAT_ROLE_TOOL, "warm"),
    ]


async def test_a_streamed_call_of_a_tool_is_put_together(world: GatewayWorld) -> None:
    async with (
        world.client() as client,
        client.chat.completions.stream(model="echomesh", messages=HELLO, tools=[WEATHER]) as stream,
    ):
        done = await stream.get_final_completion()
    calls = done.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.arguments for call in calls] == ['{"city": "Lima"}']


@pytest.mark.parametrize(
    ("choice", "tools", "told"),
    [
        ("none", 0, ""),
        ("required", 1, "required"),
        ({"type": "function", "function": {"name": "weather"}}, 1, "weather"),
    ],
)
async def test_the_choice_of_tools_reaches_the_model(
    world: GatewayWorld, choice: Any, tools: int, told: str
) -> None:
    async with world.client() as client:
        await client.chat.completions.create(
            model="echomesh", messages=HELLO, tools=[WEATHER], tool_choice=choice
        )
    asked = world.models.requests[-1]
    assert (tools, told) == (len(asked.tools), asked.tool_choice)


class Place(BaseModel):
    """What a structured reply is read into."""

    city: str
    warm: bool


async def test_a_structured_reply_is_read_into_its_class(world: GatewayWorld) -> None:
    async with world.client() as client:
        done = await client.chat.completions.parse(
            model="echomesh", messages=HELLO, response_format=Place
        )
    assert Place(city="Lima", warm=True) == done.choices[0].message.parsed
    assert '"warm"' in world.models.requests[-1].response_format.json_schema


async def test_how_to_draw_tokens_reaches_the_model(world: GatewayWorld) -> None:
    async with world.client() as client:
        await client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            temperature=0.5,
            top_p=0.25,
            seed=7,
            stop=["\n", "END"],
            max_completion_tokens=99,
        )
    sampling = world.models.requests[-1].sampling
    assert (
        sampling.temperature,
        sampling.top_p,
        sampling.seed,
        sampling.max_tokens,
    ) == (0.5, 0.25, 7, 99)
    assert list(sampling.stop) == ["\n", "END"]


async def test_a_system_prompt_and_the_history_are_what_the_model_reads(
    world: GatewayWorld,
) -> None:
    said: list[Any] = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Ahoy?"},
        {"role": "assistant", "content": "Ahoy!"},
        {"role": "user", "content": "Where to?"},
    ]
    async with world.client() as client:
        await client.chat.completions.create(model="echomesh", messages=said)
    prompt = [(m.role, m.content) for m in world.models.requests[-1].messages]
    assert prompt[0][1].startswith("You are a pirate.")
    assert "Echo" not in prompt[0][1]
    assert [content for _, content in prompt[1:]] == ["Ahoy?", "Ahoy!", "Where to?"]


async def test_a_plain_completion_is_answered_and_stored_nowhere(world: GatewayWorld) -> None:
    async with world.client() as client:
        done = await client.completions.create(model="echomesh", prompt="Once upon a time")
        stream = await client.completions.create(model="echomesh", prompt="Once", stream=True)
        parts = [chunk.choices[0].text async for chunk in stream]
    assert (done.choices[0].text, "".join(parts)) == ("Hello there", "Hello there")
    assert not world.memory.turns


async def test_vectors_come_as_numbers_and_as_base64(world: GatewayWorld) -> None:
    async with world.client() as client:
        packed = await client.embeddings.create(model="echomesh", input=["a", "bcd"])
        plain = await client.embeddings.create(
            model="tiny-embed@1", input="bcd", encoding_format="float"
        )
    assert list(packed.data[0].embedding) == [1.0, 0.0, 0.0, 1.0]
    assert list(plain.data[0].embedding) == list(packed.data[1].embedding)
    assert packed.usage.total_tokens == 4


async def test_many_texts_are_embedded_in_batches_and_keep_their_order(
    world: GatewayWorld,
) -> None:
    texts = ["x" * (1 + number % 7) for number in range(600)]
    async with world.client() as client:
        done = await client.embeddings.create(model="echomesh", input=texts)
    assert [len(one) for one in texts] == [each.embedding[0] for each in done.data]
    assert world.embeddings.calls == [256, 256, 88]


async def test_texts_for_another_model_are_sent_in_batches_whose_answers_fit(
    tmp_path: Path,
) -> None:
    models = Embedders([], {})
    async with gateway_world(tmp_path, models=models) as world, world.client() as client:
        done = await client.embeddings.create(model="lab/large", input=["a"] * 100)
    assert len(done.data) == 100
    assert max(models.calls) * 8192 * 4 <= MAX_MESSAGE_BYTES


async def test_the_models_are_listed_with_the_meshs_own_choices_first(
    world: GatewayWorld,
) -> None:
    async with world.client() as client:
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("tiny")
    own = ["echomesh", "echomesh-instant", "echomesh-fast", "echomesh-standard"]
    assert [*own, "tiny", "tiny-embed@1"] == names
    assert one.id == "tiny"


async def test_a_client_that_closes_its_stream_stops_the_generation(tmp_path: Path) -> None:
    models = language_models(hangs("Hello"))
    async with gateway_world(tmp_path, models=models) as world, world.client() as client:
        stream = await client.chat.completions.create(
            model="echomesh-standard", messages=HELLO, stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await asyncio.wait_for(models.stopped.wait(), 60)


async def test_a_client_that_gives_up_waiting_stops_the_generation(tmp_path: Path) -> None:
    models = language_models(hangs("Hello"))
    async with gateway_world(tmp_path, models=models) as world, world.client() as client:
        waiting = asyncio.create_task(
            client.chat.completions.create(model="echomesh-standard", messages=HELLO)
        )
        while not models.requests:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait_for(models.stopped.wait(), 60)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError),
        ({"n": 2}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"temperature": 9.0}, openai.BadRequestError),
        ({"logprobs": True}, openai.BadRequestError),
    ],
)
async def test_what_cannot_be_had_is_refused_by_the_clients_own_errors(
    world: GatewayWorld, options: dict[str, Any], error: type[Exception]
) -> None:
    async with world.client() as client:
        with pytest.raises(error):
            await client.chat.completions.create(
                **{"model": "echomesh", "messages": HELLO, **options}
            )


async def test_an_idempotency_key_answers_once_and_replays(world: GatewayWorld) -> None:
    async with world.client() as client:
        options: Any = {
            "model": "echomesh",
            "messages": HELLO,
            "extra_headers": {"Idempotency-Key": "k1"},
        }
        first = await client.chat.completions.create(**options)
        second = await client.chat.completions.create(**options)
        assert first.choices[0].message.content == second.choices[0].message.content
        with pytest.raises(openai.ConflictError):
            await client.chat.completions.create(**{**options, "temperature": 1.5})
    assert len(world.models.requests) == 1
