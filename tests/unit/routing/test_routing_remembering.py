"""The memory side of a turn: what goes on after the client has its final frame."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.routing import remembering
from services.routing.domain import (
    BegunTurn,
    Decision,
    Explanation,
    FinishReason,
    PastMessage,
    QueryType,
    StoreResult,
    Tier,
    TurnRequest,
)
from services.routing.remembering import MemoryLeg
from services.routing.streams import Background
from services.routing.turn import Transcript

WAIT_S = 10.0
WHY = Explanation(Decision(Tier.FAST, QueryType.RECALL, "m", "ready"), (), (), "")
MESSAGE = PastMessage("m1", "c1", 1, from_assistant=False, speaker="Ann", text="Hello?")


class SlowMemory:
    """A memory whose `complete` is answered when the test says so: its first replica froze."""

    def __init__(self) -> None:
        self.may_answer, self.stored = asyncio.Event(), asyncio.Event()

    async def complete(self, turn: TurnRequest, **_: Any) -> str:
        await self.may_answer.wait()
        self.stored.set()
        return "r1"


async def test_a_reply_whose_fate_was_unknown_is_written_once_memory_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its write outlasts the time in which a frozen replica is noticed and another one asked."""
    monkeypatch.setattr(remembering, "STORE_S", 0.01)
    memory: Any = SlowMemory()
    turn = TurnRequest("r1", "c1", "Hello?")
    leg = MemoryLeg(memory, turn, Background(), speaker="Echo")
    reply = Transcript(text="Hi.", model="m")
    begun = BegunTurn(MESSAGE, 1)
    fate = await leg.complete(begun, reply, FinishReason.STOP, WHY, timeout_s=0.05)
    assert fate == ("", StoreResult.UNKNOWN)
    memory.may_answer.set()
    await asyncio.wait_for(memory.stored.wait(), WAIT_S)
