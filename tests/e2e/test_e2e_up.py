"""How `up` watches what runs."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil
import pytest

from echomesh import Client
from services.cli.health import Answer, ask_health
from tests.support.mesh import RunningMesh, until

# A frozen service is killed after about 10 s; the rest is for a loaded machine.
FROZEN_S = 60


def connect(mesh: RunningMesh) -> Client:
    return Client(mesh.file.address, api_key=mesh.credentials.api_key)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["memory", "routing"])
async def test_a_frozen_service_is_killed_and_started_again(mesh: RunningMesh, name: str) -> None:
    """A process that is stopped, not dead, is noticed by its silence."""
    victim = mesh.service(name)
    os.kill(victim.pid, signal.SIGSTOP)
    until(lambda: not _is_there(victim), FROZEN_S, f"the end of the frozen {name}")
    until(lambda: _pid(mesh, name) not in (None, victim.pid), 30, f"the return of {name}")
    async with asyncio.timeout(FROZEN_S):
        while await ask_health(mesh.file.services[name], 1.0) is not Answer.SERVING:
            await asyncio.sleep(0.1)

    async with connect(mesh) as client:
        user = client.as_user(f"frozen-{name}")
        await user.remember(f"The {name} passphrase is osprey.", request_id=f"frozen-{name}")
        assert [h.memory.text for h in (await user.recall("passphrase")).hits]
    assert f"{name} gave no answer and was killed" in mesh.log.read_text()


def _is_there(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _pid(mesh: RunningMesh, name: str) -> int | None:
    try:
        return mesh.service(name).pid
    except (AssertionError, psutil.NoSuchProcess):
        return None
