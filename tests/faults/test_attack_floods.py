"""Fault 20: slow, silent, unread and reset connections, and the mesh goes on answering.

How soon health answers meanwhile is measured by `python -m tests.faults.attack.floods`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from echomesh import Client
from tests.faults.attack.floods import attacks, more_files, open_fds, settled, token_of, watched
from tests.faults.attack.fuzz import pids
from tests.support.mesh import RunningMesh, running_mesh, until

pytestmark = pytest.mark.timeout(240)

IDLE = 3_000
SETTLES_S = 60.0


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """One mesh for all of this file."""
    folder: Path = tmp_path_factory.mktemp("floods") / "data"
    with running_mesh(folder) as mesh:
        yield mesh


async def _chat(mesh: RunningMesh) -> str:
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        text, _ = await client.reply("Is anybody there?", store=False)
    return text


@pytest.mark.parametrize("name", ["slowloris", "resets", "unread", "idle"])
async def test_a_flood_of_connections_is_borne(attacked: RunningMesh, name: str) -> None:
    """Health answers every time, a chat works meanwhile and after; sockets go back; none crashed.

    By `unread` 300 chats and 900 health watches are opened whose answers are never read.
    """
    mesh, before = attacked, (pids(attacked), open_fds(attacked))
    attack = attacks(mesh, more_files(IDLE), await token_of(mesh))[name]

    with watched(mesh) as health:
        running = asyncio.create_task(asyncio.to_thread(attack))
        replies = [await _chat(mesh)]
        outcome = await running
        replies.append(await _chat(mesh))

    assert health.failed == []
    assert health.seconds
    assert all(replies)
    if name == "idle":
        assert outcome == more_files(IDLE)
    await asyncio.to_thread(until, lambda: settled(mesh, before[1]), SETTLES_S, "closing sockets")
    assert pids(mesh) == before[0]
