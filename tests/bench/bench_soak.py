"""A soak: people chat with a pause to think while services are killed; what grows, what is lost.

50 people, 2 s between a reply and the next message, one service killed with SIGKILL every
`--kill-every` seconds (Postgres too). Sizes are read every few seconds; growth is fitted to what a
process had after warm-up, and a killed process begins anew, so each fit is over the longest life
of the service. At the end everything that was acknowledged is looked for through the API.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from echomesh import Client
from tests.bench import processes
from tests.bench.figures import after_warm_up, growth_percent_a_day
from tests.bench.people import (
    Heard,
    chat_once,
    client_of,
    sample_mix,
    settle,
    wait_indexed,
    wait_whole,
)
from tests.bench.report import heading, note, progress, table, times_ms
from tests.support.mesh import RunningMesh, running_mesh

_LOOK_EVERY_S = 5.0
_FIT_POINTS = 8
_SETTLE_S = 15.0
KILLED = ("routing", "memory", "memory's worker", "models", "embeddings", "auth", "postgres")


@dataclass
class Seen:
    """What the soak saw: replies, kills, and sizes by service and life of its process."""

    heard: list[Heard] = field(default_factory=list)
    stored: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    kills: Counter[str] = field(default_factory=Counter)
    sizes: dict[tuple[str, int], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def main() -> int:
    """Run, print, and return 1 if anything failed or was lost."""
    given = _arguments()
    heading("soak")
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        with running_mesh(Path(folder) / "data") as mesh:
            lost = asyncio.run(_soak(mesh, given, seen))
    _show(seen, lost, given.minutes * 60)
    return 1 if lost or any(one.error for one in seen.heard) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--think", type=float, default=2.0, help="seconds")
    parser.add_argument("--memories", type=int, default=100)
    parser.add_argument("--kill-every", type=float, default=45.0, help="seconds; 0: never")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


async def _soak(mesh: RunningMesh, given: argparse.Namespace, seen: Seen) -> int:
    """Run the soak; returns how many acknowledged messages cannot be found in the end."""
    async with client_of(mesh) as client:
        users = await settle(client, given.people, given.memories)
        await wait_whole(users[0])
        ends = time.monotonic() + given.minutes * 60
        texts = itertools.cycle(sample_mix())
        chosen = random.Random(given.seed)  # noqa: S311 - the same kills in every run
        watching = [asyncio.create_task(_watch(mesh, seen))]
        if given.kill_every:
            killing = _kill(mesh, seen, chosen, given.kill_every, ends - _SETTLE_S)
            watching.append(asyncio.create_task(killing))

        async def person(number: int, user: Client) -> None:
            await asyncio.sleep(given.think * number / len(users))
            while time.monotonic() < ends:
                # The words that only this message has show that it is there in the end.
                text = f"{next(texts)} [{uuid.uuid4().hex[:12]}]"
                heard = await chat_once(user, text, "soak", timeout_s=60.0)
                seen.heard.append(heard)
                if heard.stored:
                    seen.stored[number].append(text)
                await asyncio.sleep(given.think)

        await asyncio.gather(*(person(number, user) for number, user in enumerate(users)))
        for task in watching:
            task.cancel()
        return await _count_lost(users, seen)


async def _watch(mesh: RunningMesh, seen: Seen) -> None:
    """Note the size of each process; the life of a service is known by its first process."""
    began = time.monotonic()
    while True:
        for name, group in processes.by_service(mesh).items():
            life = group[0].pid
            size = sum(map(processes.size_mb, group))
            seen.sizes[name, life].append((time.monotonic() - began, size))
        await asyncio.sleep(_LOOK_EVERY_S)


async def _kill(
    mesh: RunningMesh, seen: Seen, chosen: random.Random, every_s: float, ends: float
) -> None:
    while time.monotonic() + every_s < ends:
        await asyncio.sleep(every_s * chosen.uniform(0.7, 1.3))
        name = chosen.choice(KILLED)
        group = processes.by_service(mesh).get(name, [])
        if group:
            with suppress(psutil.NoSuchProcess):
                group[0].kill()
            seen.kills[name] += 1
            progress(f"killed {name}")


async def _count_lost(users: Sequence[Client], seen: Seen) -> int:
    """Acknowledged messages that no list of messages has."""
    await wait_indexed(users)
    lost = 0
    for number, user in enumerate(users):
        if seen.stored[number]:
            there = {message.text async for message in user.messages("soak")}
            lost += sum(text not in there for text in seen.stored[number])
    return lost


def _show(seen: Seen, lost: int, seconds: float) -> None:
    errors = Counter(one.error for one in seen.heard if one.error)
    unknown = sum(not (one.error or one.stored) for one in seen.heard)
    stored = sum(map(len, seen.stored.values()))
    row = [f"{seconds / 60:g}", len(seen.heard), sum(seen.kills.values()), sum(errors.values())]
    row += [lost, stored, unknown]
    texts = times_ms([one.first_text_s for one in seen.heard if not one.error])
    header = ["minutes", "chats", "kills", "errors", "lost", "acknowledged", "not acknowledged"]
    table([*header, "first text p50", "p95", "p99"], [[*row, *texts]])
    for reason, count in errors.items():
        note(f"{count} x {reason}")
    _show_growth(seen)
    note(f"Killed: {dict(seen.kills)}.")


def _show_growth(seen: Seen) -> None:
    """Print each service's growth over its longest life, from the second half of it."""
    longest: dict[str, list[tuple[float, float]]] = {}
    for (name, _), points in seen.sizes.items():
        if len(points) > len(longest.get(name, [])):
            longest[name] = points
    rows: list[list[object]] = []
    for name, points in sorted(longest.items()):
        kept = after_warm_up(points)
        lasted = points[-1][0] - points[0][0]
        growth = "too short to fit"
        if len(kept) >= _FIT_POINTS:
            growth = f"{growth_percent_a_day(*zip(*kept, strict=True)):+.0f} %"
        rows.append([name, f"{points[0][1]:.0f} MB", f"{points[-1][1]:.0f} MB"])
        rows[-1] += [f"{lasted:.0f} s", growth]
    table(["service", "first", "last", "longest life", "growth a day, extrapolated"], rows)


if __name__ == "__main__":
    sys.exit(main())
