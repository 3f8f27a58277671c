"""A frozen index worker is given up while calls to it run: they fail, and nothing else does."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from services.memory.index.edge import EdgeIndex, edge_supervisor
from services.runtime.errors import AppError, Reason
from services.runtime.process import socket_folder
from tests.integration.test_index_edge_faults import DIMENSIONS, point

pytestmark = pytest.mark.timeout(240)


async def test_a_call_under_way_when_the_worker_is_given_up_says_that_the_index_is_away(
    tmp_path: Path,
) -> None:
    """It must not look like a cancel: that would end, without a word, the task that indexes."""
    worker = edge_supervisor(tmp_path / "index", DIMENSIONS, socket_folder(tmp_path))
    index = EdgeIndex(worker)
    await index.start()
    await worker.ready(60)
    try:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        calls = [index.upsert([point(1)]), index.generation(), index.count("acme", "ann")]
        failed = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in failed] == [AppError] * 3
        reasons = {error.reason for error in failed if isinstance(error, AppError)}
        assert reasons == {Reason.DEPENDENCY_UNAVAILABLE}
    finally:
        await index.close()


async def test_a_caller_that_leaves_is_still_cancelled(tmp_path: Path) -> None:
    """Only the end of the worker is told as its absence."""
    worker = edge_supervisor(tmp_path / "index", DIMENSIONS, socket_folder(tmp_path))
    index = EdgeIndex(worker)
    await index.start()
    await worker.ready(60)
    try:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        call = asyncio.ensure_future(index.upsert([point(1)]))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    finally:
        await index.close()
