"""Case 11: 200 ms more between services, and loss. Chats answer and say what they lack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

import echomesh
from echomesh import Client
from services.routing.budget import FIRST_TEXT_S
from services.routing.domain import Tier
from services.runtime.settings import local_address
from tests.support.mesh import RunningMesh, free_port_base, running_mesh
from tests.support.slow_link import Link, slow_links

# Half of it there, half of it back.
ROUND_TRIP_S = 0.2
LOSS = 0.05
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
    links: list[Link]

    def become(self, round_trip_s: float, loss: float) -> None:
        """Change all links at once."""
        for link in self.links:
            link.delay_s, link.loss = round_trip_s / 2, loss


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    base = free_port_base()
    links = {(caller, callee): Link(_port(callee, base)) for caller, callee in LINKS}
    with slow_links(*links.values()):
        env = {
            f"ECHOMESH_{caller.upper()}_{callee.upper()}_TARGET": link.target
            for (caller, callee), link in links.items()
        }
        folder = tmp_path_factory.mktemp("far") / "data"
        with running_mesh(folder, env=env, port_base=base) as mesh:
            yield Far(mesh, list(links.values()))


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


def _held(final: echomesh.Final) -> bool:
    """Whether the tier's promise was kept, or the reply says what it went without."""
    promise_s = FIRST_TEXT_S[Tier[final.tier.upper()]]
    return bool(final.degraded) or (final.first_text_s or 0.0) <= promise_s


async def test_with_200_ms_between_services_chats_answer_and_tiers_hold_or_say_degraded(
    far: Far, client: Client
) -> None:
    """A patient tier has everything; the instant one leaves out what cannot come in time."""
    user = client.as_user("far")
    await user.remember("My boat is called Petrel.")
    far.become(ROUND_TRIP_S, 0.0)
    standard = [await _chat(user, number, "standard") for number in range(4)]
    assert all("Petrel" in text for text, _ in standard)
    assert {f.message_stored for _, f in standard} == {f.reply_stored for _, f in standard}
    assert {f.reply_stored for _, f in standard} == {"stored"}
    instant = [await _chat(user, number, "instant") for number in range(4)]
    assert [final for _, final in [*standard, *instant] if not _held(final)] == []
    # Recall passes two links and cannot be back before this tier's text.
    assert all(final.degraded for _, final in instant)
    assert far.links[0].pieces > 0


async def test_with_loss_as_well_no_chat_fails_and_what_is_said_to_be_stored_is(
    far: Far, client: Client
) -> None:
    """Pieces that come late, and connections given up for it, are no client's concern."""
    user = client.as_user("lossy")
    kept = await user.remember("My boat is called Petrel.")
    far.become(ROUND_TRIP_S, LOSS)
    before = sum(link.lost for link in far.links)
    tiers = ("instant", "fast", "standard")
    chats = [_chat(user, number, tiers[number % 3]) for number in range(24)]
    done = [final for _, final in await asyncio.gather(*chats)]
    assert sum(link.lost for link in far.links) > before
    far.become(0.0, 0.0)
    stored = {m.id async for c in user.conversations() async for m in user.messages(c.id)}
    said = {f.message_id for f in done if f.message_stored == "stored"}
    said |= {f.reply_id for f in done if f.reply_stored == "stored"}
    assert said
    assert said <= stored
    assert kept.id in {m.id async for m in user.memories()}


async def test_when_the_links_are_good_again_nothing_is_left_out(far: Far, client: Client) -> None:
    """The mesh heals by itself: no breaker, token or connection remembers the bad time for ever."""
    far.become(0.0, 0.0)
    user = client.as_user("near")
    await user.remember("My boat is called Petrel.")
    async with asyncio.timeout(60):
        while True:
            text, final = await _chat(user, 0, "fast")
            if not final.degraded and "Petrel" in text:
                return
            await asyncio.sleep(0.2)
