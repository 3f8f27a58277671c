"""Which replica is called next, and what closing does about calls that still come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from echomesh._errors import EchomeshError
from echomesh._peers import Peers


class FakeChannel:
    """A channel that tells when it is closed."""

    def __init__(self, on_close: Callable[[], object]) -> None:
        self.on_close = on_close
        self.closed = False

    def unary_unary(self, _method: str) -> None:
        """Nothing is called here."""

    async def close(self) -> None:
        self.closed = True
        self.on_close()


def test_calls_to_two_services_by_turns_reach_all_replicas_of_both() -> None:
    peers = Peers(lambda _: FakeChannel(lambda: None))  # type: ignore[arg-type,return-value]
    picked = [(peers.pick("a:1,b:1").address, peers.pick("c:1,d:1").address) for _ in range(4)]
    assert {first for first, _ in picked} == {"a:1", "b:1"}
    assert {second for _, second in picked} == {"c:1", "d:1"}


async def test_a_call_that_comes_meanwhile_does_not_keep_a_channel_from_being_closed() -> None:
    channels: list[FakeChannel] = []

    def late() -> None:
        with pytest.raises(EchomeshError, match="closed"):
            peers.pick("late:1")

    def connect(_address: str) -> Any:
        channels.append(FakeChannel(late))
        return channels[-1]

    peers = Peers(connect)
    peers.pick("a:1")
    peers.pick("b:1")
    await peers.close()
    assert [channel.closed for channel in channels] == [True, True]
