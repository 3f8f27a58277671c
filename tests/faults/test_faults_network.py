"""Case 11: 200 ms more between services, and loss. Chats answer and say what they lack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

import echomesh
from echomesh import Client
from services.runtime.settings import local_address
from tests.support.mesh import RunningMesh, free_port_base, running_mesh
from tests.support.network import Network, network_to

# Half of it there, half of it back.
ROUND_TRIP_S = 0.2
# One piece in so many is lost and sent again.
LOST_OF = 20
DEADLINE_S = 20.0
# Who calls whom; auth is asked for its keys only.
LINKS = (
    ("routing", "memory"),
    ("routing", "models"),
    ("routing", "auth"),
    ("memory", "embeddings"),
    ("memory", "auth"),
    ("models", "embeddings"),
)

pytestmark = pytest.mark.timeout(240)


@dataclass
class Far:
    """A mesh whose services are far from each other."""

    mesh: RunningMesh
    links: list[Network]

    def become(self, round_trip_s: float, *, lost_of: int = 0) -> None:
        """Change all links at once; of `lost_of` pieces one is lost, of 0 none."""
        for link in self.links:
            link.delay(round_trip_s / 2)
            link.stalls(lost_of)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    base = free_port_base()
    folder = tmp_path_factory.mktemp("far") / "data"
    with ExitStack() as stack:
        links = [stack.enter_context(network_to(_port(callee, base))) for _, callee in LINKS]
        env = {
            f"ECHOMESH_{caller.upper()}_{callee.upper()}_TARGET": link.target
            for (caller, callee), link in zip(LINKS, links, strict=True)
        }
        yield Far(stack.enter_context(running_mesh(folder, env=env, port_base=base)), links)


def _port(service: str, base: int) -> int:
    return int(local_address(service, "mesh", base).rpartition(":")[2])


@pytest.fixture
async def client(far: Far) -> AsyncIterator[Client]:
    key = far.mesh.credentials.api_key
    async with Client(far.mesh.file.address, api_key=key, timeout_s=DEADLINE_S) as made:
        yield made


async def _chat(user: Client, number: int, tier: str) -> tuple[str, echomesh.Final]:
    return await user.reply(
        "What is the name of my boat?",
        conversation_id=f"{tier}-{number}",
        tier=tier,
        timeout_s=DEADLINE_S,
    )


async def test_with_200_ms_between_services_patient_tiers_lack_nothing_and_instant_ones_say_what(
    far: Far, client: Client
) -> None:
    """Recall passes two links and cannot be back before an instant reply's text."""
    user = client.as_user("far")
    await user.remember("My boat is called Petrel.")
    far.become(ROUND_TRIP_S)
    standard = [await _chat(user, number, "standard") for number in range(4)]
    assert all("Petrel" in text for text, _ in standard)
    stored = {(final.message_stored, final.reply_stored) for _, final in standard}
    assert stored == {("stored", "stored")}
    instant = [await _chat(user, number, "instant") for number in range(4)]
    assert all(final.degraded for _, final in instant)
    assert far.links[0].pieces > 0


async def test_with_loss_as_well_no_chat_fails_and_what_is_said_to_be_stored_is(
    far: Far, client: Client
) -> None:
    """Pieces that come late, and connections given up for it, are no client's concern."""
    user = client.as_user("lossy")
    kept = await user.remember("My boat is called Petrel.")
    far.become(ROUND_TRIP_S, lost_of=LOST_OF)
    before = sum(link.lost for link in far.links)
    tiers = ("instant", "fast", "standard")
    chats = [_chat(user, number, tiers[number % 3]) for number in range(24)]
    done = [final for _, final in await asyncio.gather(*chats)]
    assert sum(link.lost for link in far.links) > before
    far.become(0.0)
    stored = {m.id async for c in user.conversations() async for m in user.messages(c.id)}
    said = {f.message_id for f in done if f.message_stored == "stored"}
    said |= {f.reply_id for f in done if f.reply_stored == "stored"}
    assert said
    assert said <= stored
    assert kept.id in {m.id async for m in user.memories()}


async def test_when_the_links_are_good_again_nothing_is_left_out(far: Far, client: Client) -> None:
    """The mesh heals by itself: no breaker, token or connection remembers the bad time for ever."""
    far.become(0.0)
    user = client.as_user("near")
    await user.remember("My boat is called Petrel.")
    async with asyncio.timeout(60):
        while True:
            text, final = await _chat(user, 0, "fast")
            if not final.degraded and "Petrel" in text:
                return
            await asyncio.sleep(0.2)
