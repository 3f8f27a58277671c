"""How many people can chat at once: an open loop, whatever the replies take.

Each person says something every `--every` seconds on average (arrivals are a Poisson process, so
people do not wait for each other), on the instant tier, with recall over `--memories` memories.
The load rises step by step; the generator runs on the same machine. A chat that fails counts as
slower than any limit; a degraded reply is no success either, so people are counted once with and
once without them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from echomesh import Client
from tests.bench import processes
from tests.bench.figures import percentile, poisson_arrivals
from tests.bench.people import Heard, chat_once, client_of, sample_mix, settle, wait_whole
from tests.bench.report import heading, note, table, times_ms
from tests.support.mesh import RunningMesh, running_mesh

_LAG_EVERY_S = 2.0
_WATCHED = 10


@dataclass
class Step:
    """What one load brought."""

    people: int
    seconds: float
    heard: list[Heard] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    cpu_percent: float = 0.0
    spent_ms: dict[str, float] = field(default_factory=dict)

    def first_texts_s(self, *, whole_only: bool = False) -> list[float]:
        """Seconds to the first text; endless where there was none, or it lacked something."""
        return [
            math.inf if one.error or (whole_only and one.degraded) else one.first_text_s
            for one in self.heard
        ]

    def within(self, limit_s: float, *, whole_only: bool) -> bool:
        """Whether 95 of 100 had their first text within `limit_s`."""
        return percentile(self.first_texts_s(whole_only=whole_only), 95) <= limit_s


def main() -> None:
    """Raise the number of people step by step."""
    given = _arguments()
    heading("people")
    steps = [int(part) for part in given.people.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        with running_mesh(Path(folder) / "data") as mesh:
            done = asyncio.run(_climb(mesh, steps, given))
    _show(done, given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="people", description=__doc__)
    parser.add_argument("--people", default="50,100", help="steps, ascending")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each step")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between messages")
    parser.add_argument("--memories", type=int, default=200)
    parser.add_argument("--limit-ms", type=float, default=300.0, help="p95 to the first text")
    return parser.parse_args()


async def _climb(mesh: RunningMesh, steps: Sequence[int], given: argparse.Namespace) -> list[Step]:
    done = []
    texts = itertools.cycle(sample_mix())
    async with client_of(mesh) as client:
        users = await settle(client, max(steps), given.memories)
        await wait_whole(users[0])
        for user in users:
            await user.index_status()
        await asyncio.gather(*(chat_once(user, next(texts), "warm") for user in users[:20]))
        for people in steps:
            step = await _step(mesh, users[:people], texts, given)
            done.append(step)
            if percentile(step.first_texts_s(), 95) * 1000 > 4 * given.limit_ms:
                break
    return done


async def _step(
    mesh: RunningMesh, users: Sequence[Client], texts: Iterator[str], given: argparse.Namespace
) -> Step:
    step = Step(len(users), given.seconds)
    chosen = random.Random(len(users))  # noqa: S311 - the same arrivals in every run
    before = processes.cpu_s(mesh)
    psutil.cpu_percent()
    watcher = asyncio.create_task(_watch_lag(users, step))
    chats = []
    began = time.monotonic()
    for at in poisson_arrivals(len(users) / given.every, given.seconds, chosen):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        chats.append(asyncio.create_task(chat_once(chosen.choice(users), next(texts), "talk")))
    step.heard = await asyncio.gather(*chats)
    step.cpu_percent = psutil.cpu_percent()
    step.spent_ms = processes.spent_ms(before, processes.cpu_s(mesh), len(chats) or 1)
    watcher.cancel()
    return step


async def _watch_lag(users: Sequence[Client], step: Step) -> None:
    """Store something every few seconds and see how long it waits for the index."""
    for number in itertools.count():
        user = users[number % min(len(users), _WATCHED)]
        await user.remember(f"A note of second {number}.")
        began = time.monotonic()
        while (await user.index_status())[1]:
            await asyncio.sleep(0.1)
        step.lags_s.append(time.monotonic() - began)
        await asyncio.sleep(_LAG_EVERY_S)


def _show(steps: Sequence[Step], given: argparse.Namespace) -> None:
    rows: list[list[object]] = []
    for step in steps:
        mesh_ms = sum(v for name, v in step.spent_ms.items() if name != processes.OWN)
        rows.append(
            [
                step.people,
                len(step.heard),
                *times_ms(step.first_texts_s()),
                sum(bool(one.error) for one in step.heard),
                f"{sum(bool(one.degraded) for one in step.heard) / len(step.heard):.0%}",
                f"{max(step.lags_s, default=math.nan):.1f} s",
                f"{step.cpu_percent:.0f} %",
                f"{mesh_ms:.1f}",
                f"{step.spent_ms[processes.OWN]:.1f}",
            ]
        )
    header = ["people", "messages", "first text p50", "p95", "p99", "errors", "degraded"]
    header += ["longest index lag", "CPU of machine", "mesh CPU ms each", "generator CPU ms each"]
    table(header, rows)
    limit_s = given.limit_ms / 1000
    any_reply, whole = (
        max((s.people for s in steps if s.within(limit_s, whole_only=only)), default=0)
        for only in (False, True)
    )
    note(
        f"**{whole} people** at p95 < {given.limit_ms:.0f} ms with whole replies, {any_reply} if "
        "degraded ones count, of the steps tried."
    )


if __name__ == "__main__":
    main()
