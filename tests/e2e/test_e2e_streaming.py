"""Long replies from a language model: cut off, cancelled, and carried through a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

import echomesh
from echomesh import Client
from echomesh.models.v1 import models_pb2
from tests.support.mesh import RunningMesh, running_mesh
from tests.support.openai_double import Answer, OpenAIDouble, delta, openai_double, reply

WAIT_S = 30
# The model has seconds to begin, else a busy machine has the reply quoted instead.
TIER = "standard"
pytestmark = pytest.mark.asyncio(loop_scope="module")
# What may need a tool is left to a language model, however long it takes.
NEVER_QUOTED = models_pb2.Tool(name="clock", parameters_json='{"type": "object"}')
ENDLESS = Answer([delta("Once"), delta(" upon")], hold=True)


@dataclass
class World:
    """A mesh whose language model is a double that follows a script."""

    mesh: RunningMesh
    double: OpenAIDouble
    client: Client


@asynccontextmanager
async def mesh_with_model(data: Path) -> AsyncIterator[World]:
    """Start and stop in a thread, since the double lives on this very loop."""
    async with openai_double() as double:
        env = {"ECHOMESH_MODELS_UPSTREAMS": json.dumps([{"url": double.url}])}
        running = running_mesh(data, env=env)
        mesh = await asyncio.to_thread(running.__enter__)
        try:
            key = mesh.credentials.api_key
            async with Client(mesh.file.address, api_key=key) as client:
                world = World(mesh, double, client)
                await model_found(world)
                yield world
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


async def model_found(world: World) -> None:
    """Wait until a reply comes from the model: it is found by a probe, without a restart."""
    async with asyncio.timeout(WAIT_S):
        while True:
            _, final = await world.client.reply("Hello?", store=False, tier=TIER)
            if final.model != "extractive":
                return


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with mesh_with_model(tmp_path_factory.mktemp("streaming") / "data") as made:
        yield made


async def test_a_chat_survives_kill_9_of_routing_in_the_middle_and_is_stored_once(
    world: World,
) -> None:
    user = world.client.as_user("survivor")
    world.double.answers[:] = [ENDLESS, reply("A whole", " story.")]
    frames: list[echomesh.Frame] = []
    async for frame in user.chat(
        "Tell me a long story about the sea.", conversation_id="c", tier=TIER
    ):
        if isinstance(frame, echomesh.Text) and not any(
            isinstance(f, echomesh.Text) for f in frames
        ):
            world.mesh.service("routing").kill()
        frames.append(frame)
    last_restart = max(i for i, f in enumerate(frames) if isinstance(f, echomesh.Restart))
    text = "".join(f.text for f in frames[last_restart:] if isinstance(f, echomesh.Text))
    assert text == "A whole story."
    assert isinstance(frames[-1], echomesh.Final)
    assert frames[-1].reply_stored == "stored"
    assert [m.role async for m in user.messages("c")] == ["user", "assistant"]


async def test_an_openai_client_notices_nothing_of_kill_9_of_routing(world: World) -> None:
    """The gateway asks again with the same request, as the SDK does."""
    world.double.answers[:] = [ENDLESS, reply("A whole", " story.")]
    asked = len(world.double.requests)
    options: Any = {"base_url": f"{world.mesh.file.http}/v1", "max_retries": 0}
    async with AsyncOpenAI(api_key=world.mesh.credentials.api_key, **options) as client:
        message: Any = {"role": "user", "content": "Tell me a long story about the hills."}
        waiting = asyncio.create_task(
            client.chat.completions.create(
                model=f"echomesh-{TIER}", messages=[message], user="reader"
            )
        )
        async with asyncio.timeout(WAIT_S):
            while len(world.double.requests) == asked:
                await asyncio.sleep(0.05)
        world.mesh.service("routing").kill()
        told = await waiting
    assert told.choices[0].message.content == "A whole story."
    user = world.client.as_user("reader")
    [kept] = [each.id async for each in user.conversations()]
    assert [m.role async for m in user.messages(kept)] == ["user", "assistant"]


async def test_leaving_a_reply_early_stops_the_model_and_keeps_the_text_so_far(
    world: World,
) -> None:
    user = world.client.as_user("leaver")
    world.double.answers[:] = [ENDLESS]
    world.double.hung_up.clear()
    frames = user.chat("Tell me a story that never ends.", conversation_id="c", tier=TIER)
    async for frame in frames:
        if isinstance(frame, echomesh.Text):
            break
    await frames.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(world.double.hung_up.wait(), WAIT_S)
    async with asyncio.timeout(WAIT_S):
        while len(stored := [m async for m in user.messages("c")]) < 2:
            await asyncio.sleep(0.05)
    assert stored[1].text.startswith("Once")


async def test_a_reply_still_being_written_at_the_deadline_is_ended_before_it_and_kept(
    world: World,
) -> None:
    user = world.client.as_user("patient")
    world.double.answers[:] = [Answer([delta("Once "), delta("more. ")], forever=True, pause_s=0.1)]
    text = ""
    # On a busy machine the first deadline may pass before there is any text.
    for number, timeout_s in enumerate((4.0, 12.0, 36.0)):
        world.double.hung_up.clear()
        with suppress(echomesh.EchomeshError):
            text, final = await user.reply(
                "Tell me a story that never ends.",
                conversation_id=f"c{number}",
                timeout_s=timeout_s,
                tools=[NEVER_QUOTED],
                tool_choice="none",
            )
            break
    assert text.startswith("Once ")
    assert (final.finish_reason, final.reply_stored) == ("deadline", "stored")
    await asyncio.wait_for(world.double.hung_up.wait(), WAIT_S)
    _, stored = [m.text async for m in user.messages(f"c{number}")]
    assert stored == text


async def test_a_detached_reply_is_finished_and_stored_although_the_client_left(
    world: World,
) -> None:
    user = world.client.as_user("detached")
    world.double.answers[:] = [reply(*(f"word{i} " for i in range(40)))]
    words = "Write me forty words about rain."
    frames = user.chat(words, conversation_id="c", tier=TIER, detach=True)
    async for frame in frames:
        if isinstance(frame, echomesh.Accepted):
            break
    await frames.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(WAIT_S):
        while len(stored := await _stored(user)) < 2:
            await asyncio.sleep(0.05)
    assert stored[1].text.split() == [f"word{i}" for i in range(40)]


async def _stored(user: Client) -> list[echomesh.Message]:
    """The messages so far; none where `accepted`, which promises nothing, was all that came."""
    try:
        return [message async for message in user.messages("c")]
    except echomesh.EchomeshError as error:
        if error.reason != "NOT_FOUND":
            raise
        return []


async def test_a_model_that_breaks_off_is_never_a_silent_cut(world: World) -> None:
    """The text begins again with another target, or the reply says that it failed."""
    user = world.client.as_user("cut")
    world.double.answers[:] = [Answer([delta("Half a th")], cut=True)]
    frames = [
        f async for f in user.chat("Tell me a story about a fox.", conversation_id="c", tier=TIER)
    ]
    final = frames[-1]
    assert isinstance(final, echomesh.Final)
    restarted = any(isinstance(f, echomesh.Restart | echomesh.Resume) for f in frames)
    assert restarted or final.finish_reason == "error"


async def test_what_the_user_told_is_in_the_models_prompt(world: World) -> None:
    user = world.client.as_user("prompted")
    await user.remember("I play the cello on Thursdays.")
    world.double.answers[:] = [reply("The cello.")]
    world.double.requests.clear()
    await user.reply("Which instrument do I play?", conversation_id="c", tier=TIER)
    prompt = json.dumps(world.double.requests[-1]["messages"])
    assert "cello on Thursdays" in prompt
