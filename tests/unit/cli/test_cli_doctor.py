"""What doctor makes of an index that is behind: a mesh in use always has something waiting."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import pytest

from services.cli.doctor import check_index


class Told:
    """A client whose index says one thing after the other."""

    def __init__(self, pending: Iterable[int]) -> None:
        self._pending = iter(pending)

    async def index_status(self) -> tuple[int, int]:
        return 11, next(self._pending)


def told(*pending: int, then: int) -> Any:
    return Told([*pending, *repeat(then, 1_000)])


@pytest.mark.parametrize("pending", [(0,), (1, 0), (5, 5, 4), (3, 4, 2)])
async def test_an_index_that_takes_in_what_waits_is_well(pending: tuple[int, ...]) -> None:
    finding = await check_index(told(*pending, then=9))
    assert finding.ok
    assert finding.detail == f"11 memories, {pending[-1]} pending"


async def test_an_index_that_takes_in_nothing_is_not() -> None:
    finding = await check_index(told(5, 6, then=7), limit_s=0.2)
    assert not finding.ok
    assert "11 memories, 7 pending" in finding.detail
    assert "memory's log" in finding.advice
