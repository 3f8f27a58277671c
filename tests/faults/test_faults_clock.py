"""Case 15: one service's clock is ten minutes off. It works on, or the error says why.

Up to five seconds are forgiven. Beyond that a service is treated as away by those that see that
its assertions, or theirs in its eyes, are of another time; with the right clock it is taken back
without a restart. Order never comes from a clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import echomesh
from echomesh import Client, NewMessage
from services.cli.plan import SERVICES
from services.runtime.tokens import _LEEWAY_S
from tests.support.clock_skew import Clocks, why_not
from tests.support.mesh import BUILT_MODEL, RunningMesh, running_mesh, until
from tests.support.waiting import until as eventually

TEN_MINUTES = 600
WAIT_S = 60
# What a caller may be told, by the service it asked or by one that this needed.
CLEAR = {"DEPENDENCY_UNAVAILABLE", "TOKEN_EXPIRED", "MODEL_UNAVAILABLE"}

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(240),
]


@dataclass
class World:
    """A mesh and the clock of each of its services."""

    mesh: RunningMesh
    clocks: Clocks

    def restart(self, name: str) -> None:
        """Let a service begin anew under the clock it has now, with nothing kept from before."""
        old = self.mesh.service(name)
        old.kill()
        until(lambda: _another(self.mesh, name, old.pid), WAIT_S, f"the return of {name}")


def _another(mesh: RunningMesh, name: str, old_pid: int) -> bool:
    try:
        return mesh.service(name).pid != old_pid
    except (AssertionError, psutil.NoSuchProcess):
        return False


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("clock")
    # libfaketime spoils some waits of subprocesses with EINVAL: no model is built below it.
    BUILT_MODEL.build(folder / "models")
    clocks = Clocks.prepare(folder / "clocks", SERVICES)
    with running_mesh(folder / "data", env=clocks.environment()) as mesh:
        yield World(mesh, clocks)


@pytest.fixture
def world(made: World) -> Iterator[World]:
    """The mesh, whose clocks are put right after each test."""
    yield made
    for name in SERVICES:
        made.clocks.skew(name, 0)


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    key = world.mesh.credentials.api_key
    async with Client(world.mesh.file.address, api_key=key, timeout_s=10) as made:
        yield made


async def _outcome(work: Awaitable[object]) -> str:
    """The reason a call failed with; empty if it did not."""
    try:
        await work
    except echomesh.EchomeshError as error:
        assert error.message, "an error that says nothing"
        return error.reason
    return ""


async def _eventually(work: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a success; meanwhile no error may be unclear."""

    async def succeeds() -> bool:
        try:
            return await work()
        except echomesh.EchomeshError as error:
            assert error.reason in CLEAR | {""}, f"{what}: {error}"
            return False

    await eventually(succeeds, what)


async def _whole(user: Client, conversation_id: str) -> bool:
    """Whether a reply is stored and rests on all there is."""
    _, final = await user.reply("What is my boat called?", conversation_id=conversation_id)
    stored = (final.message_stored, final.reply_stored) == ("stored", "stored")
    return stored and not final.degraded


def test_every_service_runs_under_a_clock_of_its_own(world: World) -> None:
    """The set-up itself: without the library in the process the other tests would say nothing."""
    for name in SERVICES:
        assert world.mesh.service(name).environ()["FAKETIME_TIMESTAMP_FILE"].endswith(name)


async def test_clocks_that_differ_within_the_tolerance_are_not_noticed(
    world: World, client: Client
) -> None:
    """Four seconds between callers and called, one way and the other: whole replies."""
    user = client.as_user("tolerant")
    await user.remember("My boat is called Petrel.")
    for ahead in (("routing", "models"), ("memory", "auth", "embeddings")):
        for name in SERVICES:
            world.clocks.skew(name, _LEEWAY_S - 1 if name in ahead else 0)
        await _eventually(lambda: _whole(user, "c"), f"a reply with {ahead} ahead")


# The other ways to be wrong have tests of their own below.
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("embeddings", TEN_MINUTES),
        ("models", TEN_MINUTES),
        ("memory", -TEN_MINUTES),
        ("routing", TEN_MINUTES),
    ],
)
async def test_ten_minutes_off_a_service_works_or_is_clearly_refused_and_heals(
    world: World, client: Client, name: str, seconds: int
) -> None:
    """Writing and asking succeed or name a reason; nothing acknowledged is lost; time heals it."""
    user = client.as_user(f"{name}{seconds}")
    kept = {(await user.remember("My boat is called Petrel.")).id}
    world.clocks.skew(name, seconds)
    reasons = {await _outcome(user.reply("What is my boat called?", conversation_id="c"))}
    reasons.add(await _outcome(client.as_user(f"new{name}{seconds}").recall("boat")))
    assert reasons <= CLEAR | {""}
    world.clocks.skew(name, 0)
    await _eventually(lambda: _whole(user, "healed"), f"a reply after {name} was put right")
    assert kept <= {memory.id async for memory in user.memories()}


async def test_a_memory_with_a_wrong_clock_is_left_out_of_a_reply_and_said_to_be(
    world: World, client: Client
) -> None:
    """It takes no assertion of its callers: to them it is away, and no user's token is to blame."""
    user = client.as_user("no-memory")
    world.clocks.skew("memory", TEN_MINUTES)
    _, final = await user.reply("What is my boat called?", conversation_id="c")
    assert "memory" in final.degraded
    assert final.message_stored != "stored"


async def test_the_assertions_of_a_caller_with_a_wrong_clock_are_refused_until_it_is_right(
    world: World, client: Client
) -> None:
    """Routing five minutes ahead is accepted by nobody, its users hear what is away; it heals.

    Ten minutes ahead every user's token has expired in its eyes, and it asks nobody anything.
    """
    world.clocks.skew("routing", TEN_MINUTES // 2)
    world.restart("routing")
    user = client.as_user("caller")

    async def models_is_away() -> bool:
        try:
            await user.reply("Hello?", store=False, timeout_s=5)
        except echomesh.EchomeshError as error:
            return error.metadata.get("dependency") == "models"
        return False

    await _eventually(models_is_away, "the refusal")
    world.clocks.skew("routing", 0)
    await _eventually(lambda: _whole(user, "c"), "a reply after routing was put right")


async def test_tokens_of_an_auth_with_a_wrong_clock_work_or_are_refused_by_their_expiry(
    world: World, client: Client
) -> None:
    """Ahead: they are good for so much longer. Behind: born expired, which is what callers hear."""
    world.clocks.skew("auth", TEN_MINUTES)
    ahead = client.as_user("ahead")
    assert await _outcome(ahead.remember("My boat is called Petrel.")) == ""
    world.clocks.skew("auth", -TEN_MINUTES)
    key = world.mesh.credentials.api_key
    async with Client(world.mesh.file.address, api_key=key, timeout_s=5) as late:
        # A key that is younger than the clock is wrong signs nothing yet.
        assert await _outcome(late.recall("boat")) in {"TOKEN_EXPIRED", "DEPENDENCY_UNAVAILABLE"}
    assert (await ahead.recall("boat")).hits, "a token from before is judged by its own expiry"


async def test_messages_keep_their_order_while_the_clock_jumps_back_and_forth(
    world: World, client: Client
) -> None:
    """Numbers come from the conversation's row: what is said later comes later."""
    user = client.as_user("orderly")
    said = []
    for number, seconds in enumerate((0, -TEN_MINUTES, 0, -TEN_MINUTES, 0)):
        world.clocks.skew("memory", seconds)
        said.append(f"Line {number}.")
        await user.import_messages("c", [NewMessage("user", said[-1])])
    stored = [message async for message in user.messages("c")]
    assert [message.text for message in stored] == said
    assert [message.seq for message in stored] == sorted({message.seq for message in stored})
    times = [message.time for message in stored]
    assert times != sorted(times), "the clock did not jump at all"
