"""Starting, stopping, crashing: nothing is lost and nothing is left running."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

import echomesh
from echomesh import Client
from tests.support.mesh import STOP_S, RunningMesh, running_mesh, until
from tests.support.mesh import echomesh as run_echomesh

# A part that was killed is back within this time.
RETURN_S = 40


def connect(mesh: RunningMesh, timeout_s: float = 20) -> Client:
    return Client(mesh.file.address, api_key=mesh.credentials.api_key, timeout_s=timeout_s)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of these is still running (a zombie waits for its parent only)."""
    return not any(
        p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes if _exists(p)
    )


def _exists(process: psutil.Process) -> bool:
    try:
        process.status()
    except psutil.NoSuchProcess:
        return False
    return True


@pytest.mark.timeout(300)
async def test_ctrl_c_leaves_no_process_and_a_restart_has_every_part_and_the_memory(
    tmp_path: Path,
) -> None:
    """The first recall and the first chat after "Up" do without nothing, each time."""
    data = tmp_path / "data"
    for restarted in (False, True):
        with running_mesh(data) as mesh:
            async with connect(mesh) as client:
                if not restarted:
                    told = "My favourite colour is teal."
                    _, first = await client.reply(told, conversation_id="a", tier="standard")
                    assert first.degraded == ()
                assert (await client.recall("favourite colour")).degraded == ()
                question = "What is my favourite colour?"
                text, final = await client.reply(question, store=False, tier="standard")
            assert final.degraded == ()
            assert "teal" in text or not restarted
            children = mesh.children()
            assert len(children) >= 6
            assert mesh.stop() == 0
            assert gone(children)
            assert not (data / "mesh.json").exists()


def test_kill_9_of_up_leaves_no_orphan(tmp_path: Path) -> None:
    """By themselves: a next start would end some of what is left, and so hide it."""
    with running_mesh(tmp_path / "data") as mesh:
        children = mesh.children()
        assert len(children) >= 6
        mesh.process.kill()
        mesh.process.wait(5)
        until(lambda: gone(children), STOP_S, "the end of every child")


@pytest.mark.timeout(300)
async def test_a_killed_up_can_be_started_again_at_once(tmp_path: Path) -> None:
    """Its services need a moment to end; the next start waits for them and has their memory."""
    with running_mesh(tmp_path / "data") as mesh:
        async with connect(mesh) as client:
            kept = (await client.remember("The spare key hangs behind the barometer.")).id
        mesh.process.kill()
        mesh.process.wait(5)
    with running_mesh(tmp_path / "data", port_base=mesh.port_base) as mesh:
        async with connect(mesh) as client:
            assert kept in [memory.id async for memory in client.memories()]


@pytest.mark.parametrize("name", ["auth", "embeddings", "gateway", "memory", "models", "routing"])
async def test_a_killed_service_comes_back_and_what_was_acknowledged_is_there(
    mesh: RunningMesh, name: str
) -> None:
    async with connect(mesh) as client:
        user = client.as_user(f"killed-{name}")
        await user.remember(f"The {name} passphrase is heron.")
        victim = mesh.service(name)
        victim.kill()
        until(lambda: gone([victim]), 10, "the end of the victim")
        until(lambda: _running_again(mesh, name, victim.pid), 30, f"the return of {name}")
        await _eventually_replies(user, name)


async def _eventually_replies(user: Client, name: str) -> None:
    """While a part is away the reply goes on without it; once it is back the memory is there."""
    ends = time.monotonic() + RETURN_S
    attempt = 0
    while time.monotonic() < ends:
        attempt += 1
        text, _ = await user.reply(f"What is the {name} passphrase?", conversation_id=f"c{attempt}")
        if "heron" in text:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("the memory did not come back")


def _running_again(mesh: RunningMesh, name: str, old_pid: int) -> bool:
    try:
        return mesh.service(name).pid != old_pid
    except (AssertionError, psutil.NoSuchProcess):
        return False


async def test_kill_9_of_postgres_loses_nothing_that_was_acknowledged(mesh: RunningMesh) -> None:
    async with connect(mesh) as client:
        user = client.as_user("postgres-killed")
        kept = [(await user.remember(f"Item {i} lies in drawer {i}.")).id for i in range(20)]
        pid = int((mesh.data / "postgres/data/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid), 10, "the end of Postgres")

        async def listed() -> list[str]:
            return [m.id async for m in user.memories()]

        assert sorted(await _eventually(listed)) == sorted(kept)


async def _eventually(work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """The result of a call that may fail cleanly until its service is back."""
    ends = time.monotonic() + RETURN_S
    while True:
        try:
            return await work()
        except echomesh.EchomeshError as error:
            assert error.code.name in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, error
            assert time.monotonic() < ends, error
            await asyncio.sleep(0.2)


def test_a_newer_or_broken_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    for text, complaint in (("99\n", "newer release"), ("junk", "is broken")):
        folder = tmp_path / complaint.replace(" ", "-")
        folder.mkdir()
        (folder / "format").write_text(text)
        done = run_echomesh("up", "--data", str(folder), "--port-base", "51000")
        assert done.returncode == 1
        assert complaint in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
