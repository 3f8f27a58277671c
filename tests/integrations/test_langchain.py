"""LangChain's OpenAI classes work unchanged: a base URL and a key."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.integrations.real_mesh import Gateway


class Place(BaseModel):
    """A place and its weather."""

    city: str
    warm: bool


@tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"warm in {city}"


@pytest.fixture
def chat(gateway: Gateway) -> ChatOpenAI:
    return ChatOpenAI(
        model="echomesh",
        base_url=gateway.base_url,
        api_key=SecretStr(gateway.key),
        default_headers={"X-Echomesh-Conversation": "langchain"},
    )


def test_a_message_is_answered(chat: ChatOpenAI) -> None:
    told = chat.invoke([SystemMessage("Be brief."), HumanMessage("Hello, who are you?")])
    assert told.content == "Hello there"
    assert told.usage_metadata is not None
    assert told.usage_metadata["total_tokens"] == 14


def test_an_end_user_of_an_application_is_named(chat: ChatOpenAI, gateway: Gateway) -> None:
    chat.model_copy(update={"model_kwargs": {"user": "ann"}}).invoke("My boat is called Petrel.")
    chat.invoke("What is my boat called?")
    assert "Petrel" not in str(gateway.model.requests[-1]["messages"][0])


def test_a_reply_is_streamed(chat: ChatOpenAI) -> None:
    assert "".join(str(part.content) for part in chat.stream("Hello!")) == "Hello there"


async def test_many_are_answered_at_once(chat: ChatOpenAI) -> None:
    told = await chat.abatch(["Hello!", "Good day!", "How are you?"])
    assert [each.content for each in told] == ["Hello there"] * 3


def test_a_tool_is_called_and_its_result_is_read(chat: ChatOpenAI) -> None:
    able = chat.bind_tools([weather])
    asked = HumanMessage("How is the weather in Lima?")
    called = able.invoke([asked])
    [call] = called.tool_calls
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert able.invoke([asked, called, result]).content == "Hello there"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_structured_reply_is_read_into_its_class(chat: ChatOpenAI, method: str) -> None:
    structured = chat.with_structured_output(Place, method=method)  # type: ignore[arg-type]
    assert structured.invoke("Where is it warm?") == Place(city="Lima", warm=True)


def test_a_prompt_is_completed(gateway: Gateway) -> None:
    plain = OpenAI(model="echomesh", base_url=gateway.base_url, api_key=SecretStr(gateway.key))
    assert plain.invoke("Once upon a time") == "Hello there"


def test_texts_become_vectors(gateway: Gateway) -> None:
    embeddings = OpenAIEmbeddings(
        model="echomesh",
        base_url=gateway.base_url,
        api_key=SecretStr(gateway.key),
        # It would send the ids of OpenAI's own tokens, which mean nothing to another model.
        check_embedding_ctx_length=False,
    )
    vectors = embeddings.embed_documents(["a cat", "a dog", "a bill"])
    assert [len(vector) for vector in vectors] == [384] * 3
    assert embeddings.embed_query("a cat") == pytest.approx(vectors[0], abs=1e-4)
