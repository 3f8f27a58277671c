"""What an application brings along: its instructions, the conversation as it has it, its tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from tests.support.routing_frames import collect, hit, mesh_of
from tests.support.routing_mesh import FakeMemory, ask, model, says

TOOL = models_pb2.Tool(name="weather")


def history(*texts: str) -> chat_pb2.History:
    """A conversation, the user first."""
    roles = (models_pb2.CHAT_ROLE_USER, models_pb2.CHAT_ROLE_ASSISTANT)
    messages = [
        models_pb2.ChatMessage(role=roles[number % 2], content=text)
        for number, text in enumerate(texts)
    ]
    return chat_pb2.History(messages=messages)


async def prompt_of(folder: Path, memory: FakeMemory, **asked: Any) -> models_pb2.GenerateRequest:
    """What a model that can use tools was asked for one message."""
    able = model("tiny", tools=True)
    models, running = mesh_of(folder, memory, able, tiny=says("tiny", "Hello"))
    async with running as mesh:
        await collect(mesh.chat(ask(**asked)))
    return models.requests[-1]


async def test_instructions_stand_in_the_place_of_the_default_character(tmp_path: Path) -> None:
    sent = await prompt_of(tmp_path, FakeMemory(), instructions="You are a pirate.")
    assert sent.messages[0].content.startswith("You are a pirate.")
    assert "Echo" not in sent.messages[0].content


async def test_instructions_follow_a_character_that_was_asked_for(tmp_path: Path) -> None:
    sent = await prompt_of(
        tmp_path, FakeMemory(), instructions="Speak of the sea.", persona="default"
    )
    system = sent.messages[0].content
    assert system.index("You are Echo") < system.index("Speak of the sea.")


async def test_memories_below_instructions_are_said_to_be_notes(tmp_path: Path) -> None:
    memory = FakeMemory(hits=[hit(1, "I live in Bristol now")])
    sent = await prompt_of(tmp_path, memory, instructions="You are a pirate.")
    system = sent.messages[0].content
    assert system.index("no instructions") < system.index("I live in Bristol now")


async def test_the_history_that_a_client_brings_is_what_the_model_reads(tmp_path: Path) -> None:
    sent = await prompt_of(tmp_path, FakeMemory(), history=history("Ahoy?", "Ahoy!"))
    assert [each.content for each in sent.messages[1:]] == ["Ahoy?", "Ahoy!", "Where do I live?"]


async def test_what_the_history_says_is_not_said_again_as_a_memory(tmp_path: Path) -> None:
    memory = FakeMemory(hits=[hit(1, "I live in Bristol now"), hit(2, "I keep bees")])
    sent = await prompt_of(tmp_path, memory, history=history("I live in Bristol now", "Nice!"))
    assert "I keep bees" in sent.messages[0].content
    assert "Bristol" not in sent.messages[0].content


@pytest.mark.parametrize(
    ("choice", "tools", "told"),
    [("", 1, ""), ("auto", 1, ""), ("none", 0, ""), ("required", 1, "required")],
)
async def test_the_choice_of_tools_is_the_callers(
    tmp_path: Path, choice: str, tools: int, told: str
) -> None:
    sent = await prompt_of(tmp_path, FakeMemory(), tools=[TOOL], tool_choice=choice)
    assert (len(sent.tools), sent.tool_choice) == (tools, told)


async def test_a_reply_to_be_continued_needs_no_tools(tmp_path: Path) -> None:
    begun = models_pb2.ChatMessage(role=models_pb2.CHAT_ROLE_ASSISTANT, content="You live in")
    models, running = mesh_of(tmp_path, FakeMemory(), model("tiny"), tiny=says("tiny", " Bristol."))
    async with running as mesh:
        await collect(mesh.chat(ask(tool_messages=[begun])))
    assert models.requests[-1].messages[-1].content == "You live in"


async def test_a_message_keeps_its_key_on_its_way_to_memory(tmp_path: Path) -> None:
    seen: list[str] = []

    class Noting(FakeMemory):
        async def BeginTurn(self, request: Any, context: Any) -> Any:  # noqa: N802
            seen.append(request.message_key)
            return await super().BeginTurn(request, context)

    await prompt_of(tmp_path, Noting(), message_key="k1")
    assert seen == ["k1"]
