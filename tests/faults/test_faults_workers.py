"""Case 3 on one machine: a frozen index worker and a frozen postmaster are replaced."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

import echomesh
from echomesh import Client
from tests.faults.load import chatting
from tests.support.mesh import RunningMesh, running_mesh
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """`echomesh up`, with what it restarts by itself."""
    with running_mesh(tmp_path_factory.mktemp("workers") / "data") as running:
        yield running


@pytest.fixture
async def someone(local: RunningMesh) -> AsyncIterator[Client]:
    """Its first user."""
    key = local.credentials.api_key
    async with Client(local.file.address, api_key=key, timeout_s=20) as made:
        yield made


def index_worker(mesh: RunningMesh) -> psutil.Process | None:
    """The process that holds the embedded index, if there is one now."""
    for process in mesh.children():
        try:
            if "services.memory.index.edge_worker" in process.cmdline():
                return process
        except psutil.NoSuchProcess:
            continue  # it ended while it was looked at
    return None


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
async def test_what_was_acknowledged_is_recalled_while_the_index_worker_is_replaced(
    local: RunningMesh, someone: Client, blow: signal.Signals
) -> None:
    """Index away: recall goes on by words, and says so; the index catches up when it returns."""
    user = someone.as_user(f"worker-{blow.name}")
    await user.remember("The spare key lies under the third flowerpot.")
    worker = index_worker(local)
    assert worker is not None
    worker.send_signal(blow)
    await user.remember("The wifi word is marmalade.")
    for question, word in (
        ("Where is the spare key?", "flowerpot"),
        ("The wifi word?", "marmalade"),
    ):
        found = await user.recall(question)
        assert word in found.hits[0].memory.text
    _, final = await user.reply("Where is the spare key?", conversation_id="other")
    assert (final.message_stored, final.reply_stored) == ("stored", "stored")

    async def replaced() -> bool:
        now = index_worker(local)
        return now is not None and now.pid != worker.pid

    await until(replaced, "another worker runs")

    async def caught_up() -> bool:
        found = await user.recall("What is the wifi word?")
        return not found.degraded and (await user.index_status())[1] == 0

    await until(caught_up, "the index has everything")


async def test_a_frozen_postmaster_is_replaced_and_nothing_acknowledged_is_lost(
    local: RunningMesh, someone: Client
) -> None:
    """Nobody who chats sees an error; what was acknowledged before and meanwhile is there."""
    user = someone.as_user("postmaster")
    kept = {(await user.remember(f"Item {i} lies in drawer {i}.")).id for i in range(10)}
    postmaster = psutil.Process(int(postmaster_file(local).read_text().split()[0]))
    async with chatting(someone, prefix="pm-", people=2) as load:
        postmaster.suspend()

        async def replaced() -> bool:
            return not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE

        await until(replaced, "the frozen postmaster is gone")
        await until(lambda: lists(user), "another one answers")
        await load.goes_on(8)
        await load.is_whole()
    load.assert_no_errors()
    assert kept <= {memory.id async for memory in user.memories()}
    told = [final for final in load.finals if final.message_stored == "stored"]
    there = {m.id for i in (0, 1) for m in await history(someone.as_user(f"pm-{i}"))}
    assert {final.message_id for final in told} <= there


async def lists(user: Client) -> bool:
    """Whether memory reaches its tables; while it does not, it says that Postgres is away."""
    try:
        return bool([memory async for memory in user.memories()])
    except echomesh.EchomeshError as error:
        assert error.code.name in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, error
        return False


def postmaster_file(mesh: RunningMesh) -> Path:
    return mesh.data / "postgres" / "data" / "postmaster.pid"


async def history(user: Client) -> list[echomesh.Message]:
    return [message async for message in user.messages("default")]
