"""The load as the tests see it: what people were told, and that none of it was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.kube import Namespace

PROGRAM = (Path(__file__).parent / "load_program.py").read_text()
POD = "load"
# How long replies may stop coming altogether before the load counts as stuck.
STUCK_S = 120.0
_POLL_S = 0.5
_SCRATCH = "/tmp"  # noqa: S108 - of the pod that chats


@dataclass
class Load:
    """What people have seen so far."""

    replies: int = 0
    whole: int = 0
    stored: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, line: str) -> None:
        """Count an event."""
        event = json.loads(line)
        if "error" in event:
            self.errors.append(event["error"])
        elif "left" in event:
            self.ended = True
        else:
            self.replies += 1
            self.stored += event["stored"]
            self.seconds.append(event["seconds"])
            lacks_nothing = len(event["stored"]) == 2 and not event["degraded"]
            self.whole = self.whole + 1 if lacks_nothing else 0
        self._more.set()

    async def goes_on(self, replies: int = 12) -> None:
        """Wait until so many more replies have come."""
        wanted = self.replies + replies
        while self.replies < wanted:
            await self._next()

    async def is_whole(self, replies: int = 12) -> None:
        """Wait until so many replies in a row are stored and lack nothing."""
        while self.whole < replies:
            await self._next()

    async def _next(self) -> None:
        self._more.clear()
        await asyncio.wait_for(self._more.wait(), STUCK_S)

    async def assert_promises(self, namespace: Namespace) -> None:
        """Nobody saw an error, and whatever was called stored is in the table."""
        assert self.ended, "the load ended before it was told to"
        assert self.replies
        assert self.errors == []
        assert self.stored
        known = set(await namespace.sql("select message_id from memory.messages"))
        lost = [identity for identity in self.stored if identity not in known]
        assert lost == []

    def summary(self) -> str:
        """The figures of a run, for people."""
        ordered = sorted(self.seconds) or [0.0]
        p95 = ordered[int(0.95 * (len(ordered) - 1))]
        return (
            f"{self.replies} replies, {len(self.errors)} errors, {len(self.stored)} stored, "
            f"p95 {p95:.2f} s, worst {ordered[-1]:.2f} s"
        )


@asynccontextmanager
async def chatting(namespace: Namespace, prefix: str, people: int = 6) -> AsyncIterator[Load]:
    """People chat from inside the cluster until the block is left.

    The program runs on its own there and writes to a file, so that what is measured is the mesh and
    not the long connection of `kubectl exec`.
    """
    key = (await namespace.secret("echomesh-credentials"))["app_key"]
    address = f"echomesh-routing.{namespace.name}.svc.cluster.local:7400"
    seen, stop = f"{_SCRATCH}/{prefix}.seen", f"{_SCRATCH}/{prefix}.stop"
    await namespace.kubectl("exec", POD, "--", "rm", "-f", stop)
    start = f'python3 -c "$@" >{seen} 2>&1 </dev/null &'
    arguments = (PROGRAM, address, key, str(people), prefix, stop)
    await namespace.kubectl("exec", POD, "--", "sh", "-c", start, "sh", *arguments)
    load = Load()
    reading = asyncio.create_task(_follow(namespace, seen, load))
    try:
        await load.goes_on(people)
        yield load
        await namespace.kubectl("exec", POD, "--", "touch", stop)
        await asyncio.wait_for(reading, STUCK_S)
        print(f"\n{prefix}: {load.summary()}")
    finally:
        reading.cancel()
        await namespace.kubectl("exec", POD, "--", "touch", stop)


async def _follow(namespace: Namespace, path: str, load: Load) -> None:
    """Read what the file gains, line by line, until the load has ended."""
    read = 0
    while not load.ended:
        text = await namespace.kubectl("exec", POD, "--", "tail", "-c", f"+{read + 1}", path)
        whole = text[: text.rfind("\n") + 1]
        read += len(whole.encode())
        for line in whole.splitlines():
            # gRPC logs a connection that ends to the same place.
            if line.startswith("{"):
                load.saw(line)
        await asyncio.sleep(_POLL_S)
