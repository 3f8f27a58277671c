"""What a case has: an SDK, a live mesh behind doors, and the model that answers there."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from echomesh import Client
from tests.conformance.door import Door, doors
from tests.conformance.sdk import Person, Sdk
from tests.support.mesh import RunningMesh, running_mesh
from tests.support.openai_double import Answer, OpenAIDouble, delta, reply

PATIENCE_S = 60.0
TOKEN_S = 5
"""What a token is good for in this mesh, the least that auth allows."""
LEEWAY_S = 5
"""Validators forgive clocks that much."""
_FOUND_S = 60.0
_PUBLIC = ("routing", "auth", "memory")
WHOLE = reply("Hello", " there")
ENDLESS = Answer([delta("Once "), delta("more ")], forever=True, pause_s=0.1)


def instructions_of(case: str) -> str:
    """What a case's chats instruct the model with, by which it knows the case."""
    return f"You are in {case}."


@dataclass
class Model(OpenAIDouble):
    """The model that answers in the mesh: each case what it asked for, others with WHOLE."""

    scripts: dict[str, Answer] = field(default_factory=dict)

    def _next_answer(self) -> Answer:
        return self.scripts.get(self._case(self.requests[-1]), WHOLE)

    def asked_by(self, case: str) -> list[dict[str, Any]]:
        """The requests that came of a case, oldest first."""
        return [request for request in self.requests if self._case(request) == case]

    @staticmethod
    def _case(request: dict[str, Any]) -> str:
        found = re.search(r"You are in ([\w-]+)\.", json.dumps(request["messages"]))
        return found[1] if found else ""


@dataclass
class World:
    """A mesh whose tokens are short-lived, its model, and what the SDKs are told of it."""

    mesh: RunningMesh
    model: Model
    upstreams: dict[str, str]
    api_key: str
    # How long any one call of a case may take; short where nothing can answer.
    timeout_s: float = 30.0

    @property
    def address(self) -> str:
        """The mesh itself."""
        return self.upstreams["routing"]


@dataclass
class Case:
    """One SDK at one case, with users that no other case has."""

    world: World
    sdk: Sdk
    name: str
    stack: AsyncExitStack
    # The model's client left it before the end of its answer.
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    _users: itertools.count[int] = field(default_factory=itertools.count)
    _client: Person | None = None

    @property
    def id(self) -> str:
        """Names this SDK at this case."""
        return f"{self.name}-{self.sdk.name}"

    @property
    def long_s(self) -> float:
        """A deadline that comes after the judge's patience: what ends before it was ended."""
        return 4 * self.world.timeout_s

    async def client(self) -> Person:
        """A client that was given the mesh's own address."""
        if self._client is None:
            self._client = await self.connect(self.world.address)
        return self._client

    async def connect(self, address: str, **options: Any) -> Person:
        """Another client, at some address."""
        options = {"api_key": self.world.api_key, **options}
        return await Person.connect(self.sdk, address, timeout_s=self.world.timeout_s, **options)

    async def user(self, client: Person | None = None) -> Person:
        """A user who has nothing yet."""
        name = f"{self.id}-{next(self._users)}"
        return await (client or await self.client()).as_user(name, instructions_of(self.id))

    async def replicas(self, count: int = 2) -> tuple[Person, list[Door]]:
        """A user of a mesh that seems to have so many replicas, and these."""
        made = await self.stack.enter_async_context(doors(self.world.upstreams, count))
        address = ",".join(door.address for door in made)
        client = await self.connect(address, endpoints=dict.fromkeys(_PUBLIC, address))
        return await self.user(client), made

    async def one_door(self) -> tuple[Person, Door]:
        """A user of a mesh behind one door, and the door; the user is signed in."""
        user, (door,) = await self.replicas(1)
        await user.do("conversations")
        return user, door

    def answers(self, answer: Answer) -> None:
        """What the model says to this case from now on."""
        self.hung_up.clear()
        self.world.model.scripts[self.id] = replace(answer, left=self.hung_up)

    async def until(self, event: asyncio.Event, what: str) -> None:
        """Wait for something; it is an error if it never comes."""
        try:
            await asyncio.wait_for(event.wait(), PATIENCE_S)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}") from None


@asynccontextmanager
async def live_world(data: Path) -> AsyncIterator[World]:
    """A mesh with a model double, stopped at the end if it was not before."""
    model = Model()
    await model.start()
    env = {
        "ECHOMESH_AUTH_ACCESS_TOKEN_TTL_S": str(TOKEN_S),
        "ECHOMESH_MODELS_UPSTREAMS": json.dumps([{"url": model.url}]),
    }
    starting = running_mesh(data, env=env)
    mesh = await asyncio.to_thread(starting.__enter__)
    try:
        upstreams = {n: f"127.0.0.1:{mesh.port_base + i}" for i, n in enumerate(_PUBLIC)}
        world = World(mesh, model, upstreams, mesh.credentials.api_key)
        await _model_found(world)
        yield world
    finally:
        await asyncio.to_thread(starting.__exit__, *sys.exc_info())
        await model.stop()


async def _model_found(world: World) -> None:
    """Wait until a reply comes from the model: it is found by a probe."""
    async with Client(world.address, api_key=world.api_key) as client:
        async with asyncio.timeout(_FOUND_S):
            while (await client.reply("Hello?", store=False))[1].model == "extractive":
                await asyncio.sleep(0.1)
