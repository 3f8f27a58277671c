"""No child outlives its parent, and a worker that dies or freezes is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.runtime.errors import AppError, Reason
from services.runtime.process import (
    Child,
    is_alive,
    private_folder,
    socket_folder,
    spawn,
    spawn_guarded,
    wait_until_gone,
)
from services.runtime.supervisor import SOCKET_VARIABLE, WorkerLimits, WorkerState, WorkerSupervisor
from services.runtime.worker import STALL_LIMIT_S, STARVED_LIMIT_S, Progress

WORKER = [sys.executable, str(Path(__file__).with_name("worker_program.py"))]

PATIENCE_S = 20
"""Far above what anything here takes, for a loaded machine."""

QUICK = WorkerLimits(heartbeat_interval_s=0.05, heartbeat_timeout_s=0.3)

PARENT = """
import sys, time
from services.runtime import process
{start}
print(child.pid, flush=True)
time.sleep(60)
"""

OWN_CHILD = (
    "child = process.spawn([sys.executable, '-c', 'import time;"
    " from services.runtime.process import end_with_parent; end_with_parent(grace_s=0);"
    " time.sleep(60)'])"
)
GUARDED_CHILD = "child = process.spawn_guarded(['sleep', '60'], stop_signal=15, grace_s=1)"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[WorkerSupervisor]:
    """A supervised worker that is ready."""
    kept = WorkerSupervisor("t", WORKER, socket_folder(tmp_path), limits=QUICK)
    await kept.start()
    await kept.ready(PATIENCE_S)
    yield kept
    await kept.stop()


@pytest.mark.parametrize("start", [OWN_CHILD, GUARDED_CHILD], ids=["own", "guarded"])
async def test_kill_9_of_a_parent_leaves_no_child(start: str) -> None:
    """The pipe's end tells the child, whatever ended the parent."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(start=start)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert await wait_until_gone(pid, timeout_s=PATIENCE_S)


async def test_a_guarded_program_gets_its_own_stop_signal(tmp_path: Path) -> None:
    """SIGTERM to the guard becomes the program's stop signal, and its status comes back."""
    mark = tmp_path / "ready"
    program = f"trap 'exit 7' INT; touch {mark}; while :; do sleep 0.05; done"
    child = spawn_guarded(["sh", "-c", program], stop_signal=signal.SIGINT, grace_s=PATIENCE_S)
    await until(mark.exists)
    assert await child.stop(grace_s=PATIENCE_S) == 7


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    """`stop` ends even what does not want to end."""
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    child = spawn([sys.executable, "-c", program])
    assert await child.stop(grace_s=0.5) in (-signal.SIGKILL, -signal.SIGTERM)
    assert not is_alive(child.pid)


async def test_a_killed_worker_is_started_again(supervisor: WorkerSupervisor) -> None:
    """Kill -9 of a worker brings a new one, and calls in between are refused cleanly."""
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.pid != first)
    await supervisor.ready(PATIENCE_S)
    assert supervisor.restarts == 1
    supervisor.channel()


async def test_a_frozen_worker_is_killed_and_replaced(supervisor: WorkerSupervisor) -> None:
    """SIGSTOP is noticed by missed heartbeats; the frozen process does not stay."""
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    await until(lambda: supervisor.pid not in (None, first))
    await supervisor.ready(PATIENCE_S)
    assert not is_alive(first)


async def test_a_worker_is_kept_whatever_goes_wrong_with_one_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw costs one attempt, not the worker for good."""
    failures = [ValueError("embedded null byte"), RuntimeError("can't start new thread")]

    def start(*args: Any, **options: Any) -> Child:
        if failures:
            raise failures.pop()
        return spawn(*args, **options)

    monkeypatch.setattr("services.runtime.supervisor.spawn", start)
    kept = WorkerSupervisor("t", WORKER, socket_folder(tmp_path), limits=QUICK)
    await kept.start()
    try:
        await kept.ready(PATIENCE_S)
        assert kept.restarts == 2
    finally:
        await kept.stop()


async def test_a_worker_that_cannot_get_ready_is_tried_again_only_after_long(
    tmp_path: Path,
) -> None:
    """It says why, and starting it costs what starting costs."""
    limits = replace(QUICK, failure_backoff_s=3600.0)
    kept = WorkerSupervisor("t", [*WORKER, "no model"], socket_folder(tmp_path), limits=limits)
    await kept.start()
    try:
        await until(lambda: kept.state is WorkerState.WAITING)
        assert kept.failure == "no model"
        with pytest.raises(AppError):
            await kept.ready(0.5)
        assert kept.restarts == 1
    finally:
        await kept.stop()


async def test_a_worker_does_not_inherit_the_settings_of_the_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are keys among them, and engines read files of strangers."""
    monkeypatch.setenv("ECHOMESH_MODELS_UPSTREAM_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    given: dict[str, str] = {}

    def start(argv: Sequence[str], *, env: dict[str, str]) -> Child:
        given.update(env)
        return spawn(argv, env=env)

    monkeypatch.setattr("services.runtime.supervisor.spawn", start)
    kept = WorkerSupervisor("t", WORKER, socket_folder(tmp_path), env={"ECHOMESH_OTLP": "x"})
    await kept.start()
    await kept.ready(PATIENCE_S)
    await kept.stop()
    own = {name for name in given if name.startswith("ECHOMESH_")}
    assert own == {"ECHOMESH_OTLP", SOCKET_VARIABLE}
    assert given["HTTPS_PROXY"] == "http://proxy"


async def test_stop_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    """After `stop` the worker is gone and its channel is refused."""
    folder = socket_folder(tmp_path)
    kept = WorkerSupervisor("t", WORKER, folder, limits=QUICK)
    await kept.start()
    await kept.ready(PATIENCE_S)
    pid = kept.pid
    assert pid is not None
    await kept.stop()
    assert not is_alive(pid)
    assert list(folder.iterdir()) == []
    with pytest.raises(AppError) as failure:
        kept.channel()
    assert failure.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def test_a_request_without_steps_stalls_the_worker() -> None:
    """Ten seconds without a step fail the heartbeat; a step or the end heals it."""
    now = [0.0]
    progress = Progress(lambda: now[0], lambda: 0.0)
    with progress.request() as step:
        now[0] = STALL_LIMIT_S + 1
        assert progress.stalled()
        step()
        assert not progress.stalled()
        assert progress.in_flight == 1
        now[0] *= 3
    assert not progress.stalled()
    step()
    assert progress.in_flight == 0, "what is left of a request brought it back"


@pytest.mark.parametrize(
    ("waited_s", "used_s", "stalled"),
    [
        (STALL_LIMIT_S - 1, 0.0, False),
        (STALL_LIMIT_S + 1, 0.1, True),
        (STALL_LIMIT_S + 1, STALL_LIMIT_S, True),
        (STALL_LIMIT_S + 1, 3.0, False),
        (STARVED_LIMIT_S - 1, STALL_LIMIT_S - 1, False),
        (STARVED_LIMIT_S + 1, STALL_LIMIT_S - 1, True),
    ],
    ids=["at work", "hangs", "in circles", "starved", "starved for long", "given up"],
)
def test_a_request_that_computes_on_a_busy_machine_is_waited_for(
    waited_s: float, used_s: float, stalled: bool
) -> None:
    now, cpu = [100.0], [7.0]
    progress = Progress(lambda: now[0], lambda: cpu[0])
    with progress.request() as step:
        now[0], cpu[0] = 1000.0, 70.0
        step()
        now[0] += waited_s
        cpu[0] += used_s
        assert progress.stalled() is stalled


def test_socket_folders_are_short_and_private(tmp_path: Path) -> None:
    """A deep data folder gets a short socket folder; somebody else's is refused."""
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    folder = socket_folder(deep)
    assert len(str(folder)) < 71
    assert folder.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        private_folder(link)
    folder.rmdir()
