"""Cases 5, 7 and 13: partitions, two runners of one turn, and the chain of a cancelled reply."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio

import echomesh
from echomesh import Client
from services.runtime.settings import local_address
from tests.faults.load import assert_stored, chatting
from tests.faults.mesh import PORTS_APART, ReplicaMesh, replica_mesh
from tests.support.mesh import free_port_base
from tests.support.network import Network, network_to
from tests.support.openai_double import Answer, OpenAIDouble, delta, openai_double, reply
from tests.support.qdrant_server import running_qdrant
from tests.support.waiting import until

WAIT_S = 40.0
# It speaks on: a model that fell silent would rightly be given up, and another reply be kept.
ENDLESS = Answer([delta("Once"), delta(" upon")], forever=True, pause_s=0.2)
# Eleven processes start first, on however busy a machine.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def port_base() -> int:
    """Where this module's own mesh listens."""
    return free_port_base()


@pytest.fixture(scope="module")
def links(port_base: int) -> Iterator[list[Network]]:
    """The ways from routing to the two memory replicas."""
    with ExitStack() as stack:
        yield [stack.enter_context(network_to(_memory_port(port_base, i))) for i in (0, 1)]


def _memory_port(port_base: int, index: int) -> int:
    return int(local_address("memory", "mesh", port_base + index * PORTS_APART).split(":")[1])


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def double() -> AsyncIterator[OpenAIDouble]:
    """The language model of this module's mesh."""
    async with openai_double() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def replicas(
    tmp_path_factory: pytest.TempPathFactory,
    port_base: int,
    links: list[Network],
    double: OpenAIDouble,
) -> AsyncIterator[ReplicaMesh]:
    """A mesh of this module's own: routing reaches memory by the links, and there is a model."""
    folder = tmp_path_factory.mktemp("turns")
    target = "ipv4:" + ",".join(f"127.0.0.1:{link.port}" for link in links)
    with running_qdrant(folder / "qdrant") as index:
        environments = {
            "memory": {"ECHOMESH_MEMORY_QDRANT_URL": index.url},
            "models": {"ECHOMESH_MODELS_UPSTREAMS": json.dumps([{"url": double.url}])},
            "routing": {"ECHOMESH_MEMORY_TARGET": target},
        }
        async with replica_mesh(folder / "data", environments, port_base) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="package")
async def user(client: Client, double: OpenAIDouble) -> Client:
    """An end user of its own for each test, once replies come from the language model."""
    double.answers[:] = [reply("A whole", " story.")]
    made = client.as_user(str(uuid.uuid4()))

    async def model_answers() -> bool:
        finals = [(await made.reply("Hello?", store=False))[1] for _ in range(2)]
        return all(final.model != "extractive" for final in finals)

    await until(model_answers, "both routing replicas know the model")
    return made


async def stored(user: Client, conversation_id: str = "default") -> list[tuple[str, str]]:
    """(role, text) of a conversation; empty while there is none."""
    try:
        return [(m.role, m.text) async for m in user.messages(conversation_id)]
    except echomesh.EchomeshError as error:
        assert error.reason == "NOT_FOUND", error
        return []


# Partitions


async def test_a_partition_from_one_memory_replica_is_seen_by_nobody(
    mesh: ReplicaMesh, client: Client, user: Client, links: list[Network]
) -> None:
    """0 client errors while routing cannot reach one of two replicas, and when it can again."""
    async with chatting(client, prefix="half-") as load:
        links[0].partition()
        try:
            await load.goes_on()
        finally:
            links[0].heal()
        await load.goes_on()
    load.assert_no_errors()
    await assert_stored(mesh, load.finals)


async def test_cut_off_from_memory_replies_go_on_and_never_claim_to_be_stored(
    mesh: ReplicaMesh, client: Client, user: Client, links: list[Network]
) -> None:
    """Memory away: the reply goes on without it, NOT_STORED or UNKNOWN, never a silent loss."""
    async with chatting(client, prefix="cut-", people=3) as load:
        for link in links:
            link.partition()
        try:
            await load.goes_on(3)  # these may have been under way
            seen = len(load.finals)
            await load.goes_on(6)
        finally:
            for link in links:
                link.heal()
        meanwhile = load.finals[seen : seen + 6]
        await load.goes_on()
    load.assert_no_errors()
    assert all(final.reply_stored in {"not_stored", "unknown"} for final in meanwhile)
    assert all("memory" in final.degraded for final in meanwhile)
    await assert_stored(mesh, load.finals)

    async def stores() -> bool:
        return (await user.reply("Is all well?"))[1].reply_stored == "stored"

    await until(stores, "replies are stored again")


# Two runners, and retries


async def test_a_turn_with_several_runners_is_answered_and_stored_once(
    mesh: ReplicaMesh, user: Client, double: OpenAIDouble
) -> None:
    """The newest runner wins, on whatever replica; older ones are told TURN_SUPERSEDED."""
    request_id = str(uuid.uuid4())

    async def run() -> str:
        try:
            return (await user.reply("Tell me a story.", request_id=request_id))[0]
        except echomesh.EchomeshError as error:
            assert error.reason == "TURN_SUPERSEDED", error
            return error.reason

    double.answers[:] = [reply(*(f"word{i} " for i in range(200)))]
    texts = {text.strip() for text in await asyncio.gather(*(run() for _ in range(6)))}
    story = " ".join(f"word{i}" for i in range(200))
    assert story in texts
    assert texts <= {story, "TURN_SUPERSEDED"}
    assert [role for role, _ in await stored(user)] == ["user", "assistant"]


async def test_the_same_request_again_is_replayed_by_either_replica(user: Client) -> None:
    """A finished turn is replayed word for word, and its id is good for this request alone."""
    request_id = str(uuid.uuid4())
    text, first = await user.reply("Tell me a story.", request_id=request_id)
    for _ in range(4):
        frames = [f async for f in user.chat("Tell me a story.", request_id=request_id)]
        accepted = [f for f in frames if isinstance(f, echomesh.Accepted)]
        assert accepted[-1].replayed
        assert "".join(f.text for f in frames if isinstance(f, echomesh.Text)) == text
        assert isinstance(frames[-1], echomesh.Final)
        assert frames[-1].reply_id == first.reply_id
    with pytest.raises(echomesh.EchomeshError) as refused:
        await user.reply("Tell me another.", request_id=request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len(await stored(user)) == 2


async def test_a_turn_whose_routing_replica_froze_is_finished_by_the_other_one(
    mesh: ReplicaMesh, user: Client, double: OpenAIDouble
) -> None:
    """The frozen runner, thawed, cannot overwrite what the newer one stored."""
    double.answers[:] = [ENDLESS, reply("The end.")]
    frames: list[echomesh.Frame] = []
    async for frame in user.chat("Tell me a story.", timeout_s=WAIT_S):
        if isinstance(frame, echomesh.Text) and frame.text.startswith("Once"):
            await freeze_the_runner(mesh, frames)
        frames.append(frame)
    final = frames[-1]
    assert isinstance(final, echomesh.Final)
    assert final.reply_stored == "stored"
    assert any(isinstance(f, echomesh.Restart) for f in frames)
    for index in (0, 1):
        mesh.thaw("routing", index)
    _, again = await user.reply("And then?")
    assert again.reply_stored == "stored"
    assert [t for _, t in await stored(user)][:2] == ["Tell me a story.", "The end."]


async def freeze_the_runner(mesh: ReplicaMesh, frames: list[echomesh.Frame]) -> None:
    """Stop the routing replica that streams to the model's reader: the one with the turn."""
    for index in (0, 1):
        running = await mesh.metric("routing", index, "echomesh_rpc_server_in_flight")
        if running > 0:
            mesh.freeze("routing", index)
            return
    raise AssertionError(f"no replica runs the turn: {frames}")


# Cancelled


async def left_by_the_client(user: Client) -> None:
    frames = user.chat("Tell me a story that never ends.")
    async for frame in frames:
        if isinstance(frame, echomesh.Text):
            break
    await frames.aclose()


async def past_its_deadline(user: Client) -> None:
    try:
        async for _ in user.chat("Tell me a story that never ends.", timeout_s=6):
            pass
    except echomesh.EchomeshError as error:
        assert error.code.name == "DEADLINE_EXCEEDED", error


@pytest.mark.parametrize("leave", [left_by_the_client, past_its_deadline])
async def test_a_reply_that_nobody_waits_for_stops_the_model_and_keeps_the_text_so_far(
    mesh: ReplicaMesh,
    user: Client,
    double: OpenAIDouble,
    leave: Callable[[Client], Awaitable[None]],
) -> None:
    """Cancel and deadline reach the upstream, which sees its connection closed."""
    double.answers[:] = [ENDLESS]
    double.hung_up.clear()
    await leave(user)
    await asyncio.wait_for(double.hung_up.wait(), WAIT_S)
    await until(lambda: has_partial(user), "the text so far is stored")


async def has_partial(user: Client) -> bool:
    return any(role == "assistant" and text.startswith("Once") for role, text in await stored(user))


async def test_a_client_that_dies_stops_the_model_and_the_text_so_far_is_kept(
    mesh: ReplicaMesh, client: Client, user: Client, double: OpenAIDouble
) -> None:
    """Kill -9 of the program that reads: the same as if it had cancelled."""
    double.answers[:] = [ENDLESS]
    double.hung_up.clear()
    program = textwrap.dedent("""
        import asyncio, sys
        from echomesh import Client, Text

        async def main(address, key):
            async with Client(address, api_key=key) as client:
                async for frame in client.as_user("mortal").chat("A long story."):
                    if isinstance(frame, Text):
                        print("reading", flush=True)

        asyncio.run(main(*sys.argv[1:]))
    """)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        mesh.public("routing"),
        mesh.credentials.api_key,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"reading\n"
    finally:
        process.kill()
        await process.wait()
    await asyncio.wait_for(double.hung_up.wait(), WAIT_S)
    await until(lambda: has_partial(client.as_user("mortal")), "the text so far is stored")
