"""LlamaIndex's OpenAI-like classes work unchanged: a base URL and a key."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

from tests.integrations.real_mesh import Gateway


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"warm in {city}"


@pytest.fixture
def llm(gateway: Gateway) -> OpenAILike:
    return OpenAILike(
        model="echomesh",
        api_base=gateway.base_url,
        api_key=gateway.key,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=8192,
    )


def test_a_message_is_answered(llm: OpenAILike) -> None:
    told = llm.chat([ChatMessage(role="system", content="Be brief."), ChatMessage(content="Hello")])
    assert told.message.content == "Hello there"


def test_a_reply_is_streamed(llm: OpenAILike) -> None:
    parts = [part.delta or "" for part in llm.stream_chat([ChatMessage(content="Hello")])]
    assert "".join(parts) == "Hello there"


async def test_a_prompt_is_completed_without_blocking(llm: OpenAILike) -> None:
    assert (await llm.acomplete("Once upon a time")).text == "Hello there"


def test_a_tool_is_called(llm: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(weather)
    told = llm.predict_and_call([tool], "How is the weather in Lima?")
    assert str(told) == "warm in Lima"


def test_texts_become_vectors(gateway: Gateway) -> None:
    embedding = OpenAILikeEmbedding(
        model_name="echomesh", api_base=gateway.base_url, api_key=gateway.key
    )
    vectors = embedding.get_text_embedding_batch(["a cat", "a dog"])
    assert [len(vector) for vector in vectors] == [384, 384]
