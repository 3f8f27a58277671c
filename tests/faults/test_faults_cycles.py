"""Nothing is lost and nothing is left when `up` ends, however often and however it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cycles import Cycles

# Two of each kind; `make cycles` runs a hundred.
COUNT = 4


@pytest.mark.timeout(900)
async def test_cycles_lose_nothing_and_leave_no_process_socket_or_lock(tmp_path: Path) -> None:
    """Every acknowledged write is there after each stop and each kill -9 of `up`.

    The folder's path is too long for sockets, so they lie in the system's temporary folder: left
    behind there, nobody would find them.
    """
    data = tmp_path / ("deep-" * 12) / "data"
    done = await Cycles(data).run(COUNT, print)
    assert [cycle.ended_by for cycle in done] == ["Ctrl-C", "kill -9"] * (COUNT // 2)
    assert done[-1].acknowledged >= COUNT * 10
