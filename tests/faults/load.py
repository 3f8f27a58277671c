"""People who chat without a pause while something dies, and what they saw."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import echomesh
from echomesh import Client
from tests.faults.mesh import ReplicaMesh

# How long replies may stop coming altogether before the load counts as stuck.
STUCK_S = 40.0


@dataclass
class Load:
    """The finals and errors that all people together have seen, and when the last one came."""

    finals: list[echomesh.Final] = field(default_factory=list)
    errors: list[echomesh.EchomeshError] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, final: echomesh.Final) -> None:
        """Count a reply."""
        self.finals.append(final)
        self._more.set()

    def failed(self, error: echomesh.EchomeshError) -> None:
        """Count an error that reached a person."""
        self.errors.append(error)
        self._more.set()

    async def goes_on(self, replies: int = 12) -> None:
        """Wait until so many more replies have come, so that a fault has met calls under way."""
        wanted = len(self.finals) + replies
        while len(self.finals) < wanted:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), STUCK_S)

    async def is_whole(self, replies: int = 8) -> None:
        """Wait until so many replies in a row lack nothing: a lost replica is passed over."""
        while not all(_whole(final) for final in self.finals[-replies:]):
            await self.goes_on(1)

    def assert_no_errors(self) -> None:
        """The promise: nobody saw an error."""
        assert self.finals
        assert self.errors == [], [str(error) for error in self.errors]


def _whole(final: echomesh.Final) -> bool:
    stored = (final.message_stored, final.reply_stored) == ("stored", "stored")
    return stored and not final.degraded


@asynccontextmanager
async def chatting(client: Client, *, people: int = 4, prefix: str = "p") -> AsyncIterator[Load]:
    """People chat from the first reply of each of them until the block is left."""
    load = Load()
    leaving = asyncio.Event()
    tasks = [
        asyncio.create_task(_chat(client.as_user(f"{prefix}{i}"), load, leaving))
        for i in range(people)
    ]
    try:
        await load.goes_on(people)
        yield load
    finally:
        leaving.set()
        await asyncio.wait_for(asyncio.gather(*tasks), STUCK_S + 60)


async def _chat(user: Client, load: Load, leaving: asyncio.Event) -> None:
    for number in itertools.count():
        if leaving.is_set():
            return
        try:
            _, final = await user.reply(f"Thing {number} lies in box {number}.")
        except echomesh.EchomeshError as error:
            load.failed(error)
        else:
            load.saw(final)


async def assert_stored(mesh: ReplicaMesh, finals: Sequence[echomesh.Final]) -> None:
    """Whatever a final frame called stored is in the table."""
    told = {f.message_id for f in finals if f.message_stored == "stored"}
    told |= {f.reply_id for f in finals if f.reply_stored == "stored"}
    assert told
    query = "select message_id::text from memory.messages where message_id = any($1::uuid[])"
    rows = await mesh.sql(query, sorted(told))
    assert told == {row["message_id"] for row in rows}
