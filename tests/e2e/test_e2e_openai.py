"""OpenAI's own client and a whole mesh: what it says is remembered, once, by the right one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from echomesh import Client
from tests.support.mesh import RunningMesh


@pytest.fixture
async def openai(mesh: RunningMesh) -> AsyncIterator[AsyncOpenAI]:
    options: Any = {"base_url": f"{mesh.file.http}/v1", "max_retries": 0, "timeout": 60.0}
    async with AsyncOpenAI(api_key=mesh.credentials.api_key, **options) as made:
        yield made


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def assistant(text: str | None) -> Any:
    return {"role": "assistant", "content": text}


async def say(openai: AsyncOpenAI, *messages: Any, **options: Any) -> Any:
    return await openai.chat.completions.create(
        model="echomesh", messages=list(messages), **options
    )


async def stored(client: Client, conversation_id: str) -> list[str]:
    return [each.text async for each in client.messages(conversation_id)]


async def test_what_a_person_says_is_remembered_in_their_next_conversation(
    openai: AsyncOpenAI,
) -> None:
    name = f"person-{uuid.uuid4()}"
    await say(openai, user("My locker code is 4711."), user=name)
    told = await say(openai, user("What is my locker code?"), user=name)
    assert "4711" in told.choices[0].message.content
    other = await say(openai, user("What is my locker code?"), user=f"{name}-other")
    assert "4711" not in other.choices[0].message.content


async def test_a_conversation_that_is_sent_again_with_each_message_is_stored_once(
    openai: AsyncOpenAI, client: Client
) -> None:
    name, conversation = f"person-{uuid.uuid4()}", f"c-{uuid.uuid4()}"
    options: Any = {"user": name, "extra_headers": {"X-Echomesh-Conversation": conversation}}
    said: list[Any] = [user("I keep bees.")]
    first = (await say(openai, *said, **options)).choices[0].message.content
    said += [assistant(first), user("I have two hives.")]
    second = (await say(openai, *said, **options)).choices[0].message.content
    again = (await say(openai, *said, **options)).choices[0].message.content
    found = await stored(client.as_user(name), conversation)
    assert found == ["I keep bees.", first, "I have two hives.", second, again]


async def test_a_private_message_leaves_nothing_behind(openai: AsyncOpenAI, client: Client) -> None:
    name, conversation = f"person-{uuid.uuid4()}", f"c-{uuid.uuid4()}"
    headers = {"X-Echomesh-Conversation": conversation, "X-Echomesh-Memory": "off"}
    told = await say(openai, user("I like plums."), user=name, extra_headers=headers)
    assert told.model_extra["echomesh"]["message_stored"] == "not_stored"
    found = [each.id async for each in client.as_user(name).conversations()]
    assert found == []


async def test_vectors_are_the_meshs_own_and_of_unit_length(openai: AsyncOpenAI) -> None:
    found = await openai.embeddings.create(model="echomesh", input=["a cat", "a kitten", "tax"])
    cat, kitten, tax = (each.embedding for each in found.data)
    assert sum(x * x for x in cat) == pytest.approx(1, abs=1e-3)
    near, far = (sum(a * b for a, b in zip(cat, each, strict=True)) for each in (kitten, tax))
    assert near > far


async def test_a_model_that_cannot_call_tools_says_so(openai: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather"}}
    with pytest.raises(Exception, match="tools") as refused:
        await say(openai, user("How is the weather?"), tools=[tool])
    assert getattr(refused.value, "status_code", 0) == 400
