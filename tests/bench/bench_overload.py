"""Overload: three times what the mesh can answer, and what becomes of the excess.

First a closed loop finds the peak (finished chats a second) and the accepted p99 there; then an
open loop sends `--factor` times as much. The excess should be refused within 50 ms with RetryInfo,
those accepted should take at most twice as long as at the peak, and goodput stay above 90 % of it.
A reply that had to leave something out (`degraded`) is no success: whole and degraded ones are
told apart, and goodput is also given for whole ones alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.figures import percentile, poisson_arrivals
from tests.bench.people import Heard, client_of, sample_mix, settle, wait_whole
from tests.bench.raw import RawChat, raw_chat
from tests.bench.report import heading, note, table, times_ms
from tests.support.mesh import RunningMesh, running_mesh

REFUSED = "OVERLOADED"
CALL_S = 20.0


def main() -> None:
    """Find the peak, then send a multiple of it."""
    parser = argparse.ArgumentParser(prog="overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--factor", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--memories", type=int, default=50)
    given = parser.parse_args()
    heading("overload")
    with tempfile.TemporaryDirectory() as folder:
        with running_mesh(Path(folder) / "data") as mesh:
            asyncio.run(_measure(mesh, given))


async def _measure(mesh: RunningMesh, given: argparse.Namespace) -> None:
    texts = itertools.cycle(sample_mix())
    async with client_of(mesh) as client:
        await wait_whole((await settle(client, given.users, given.memories))[0])
    users = [f"bench-{number}" for number in range(given.users)]
    async with raw_chat(mesh, users) as chat:
        await _closed(chat, users, texts, min(3.0, given.seconds))
        peak = await _closed(chat, users, texts, given.seconds)
        rate = len(_accepted(peak)) / given.seconds
        over = await _open(chat, users, texts, rate * given.factor, given.seconds)
    _show(peak, over, given)


async def _closed(
    chat: RawChat, users: Sequence[str], texts: Iterator[str], seconds: float
) -> list[Heard]:
    """Every user chats without a pause for so long; who is refused comes again when told to."""
    ends = time.monotonic() + seconds
    heard: list[Heard] = []

    async def talk(user: str) -> None:
        while time.monotonic() < ends:
            heard.append(await chat.once(user, next(texts), CALL_S))
            await asyncio.sleep(heard[-1].retry_after_s or 0.0)

    await asyncio.gather(*(talk(user) for user in users))
    return heard


async def _open(
    chat: RawChat, users: Sequence[str], texts: Iterator[str], rate: float, seconds: float
) -> list[Heard]:
    """Messages arrive at `rate` a second, whatever becomes of those before; nobody tries again."""
    chosen, chats = random.Random(1), []  # noqa: S311 - the same arrivals in every run
    began = time.monotonic()
    for at in poisson_arrivals(rate, seconds, chosen):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        once = chat.once(chosen.choice(users), next(texts), CALL_S)
        chats.append(asyncio.create_task(once))
    return list(await asyncio.gather(*chats))


def _accepted(heard: Sequence[Heard]) -> list[Heard]:
    return [one for one in heard if not one.error]


def _whole(heard: Sequence[Heard]) -> list[Heard]:
    return [one for one in _accepted(heard) if not one.degraded]


def _show(peak: Sequence[Heard], over: Sequence[Heard], given: argparse.Namespace) -> None:
    rows = [_row("closed loop", peak, given.seconds)]
    rows.append(_row(f"{given.factor:g}x, open loop", over, given.seconds))
    header = ["load", "sent/s", "finished/s", "whole/s", "whole", "degraded"]
    header += ["accepted p50", "p95", "p99", "refused"]
    table([*header, "refused within p50", "p95", "p99", "with RetryInfo", "other ends"], rows)
    for name, heard in (("closed loop", peak), ("open loop", over)):
        left_out = Counter(part for one in heard for part in one.degraded)
        note(f"Left out, {name}: {dict(left_out) or 'nothing'}.")
    before, after = _accepted(peak), _accepted(over)
    if not (before and after):
        note("Nothing was accepted.")
        return
    slower = _p99(after) / _p99(before)
    answered = _goodput(over, given.seconds) / _goodput(peak, given.seconds)
    wholes = [_goodput(_whole(heard), given.seconds) for heard in (peak, over)]
    whole = f"{wholes[1] / wholes[0]:.0%}" if wholes[0] else "none"
    note(
        f"Accepted p99 {slower:.2f}x of the closed loop's, goodput {answered:.0%} of it; "
        f"of whole replies alone {whole}."
    )


def _row(name: str, heard: Sequence[Heard], seconds: float) -> list[object]:
    refused = [one for one in heard if one.error == REFUSED]
    told = sum(one.retry_after_s is not None for one in refused)
    others = Counter(one.error for one in heard if one.error not in ("", REFUSED))
    return [
        name,
        f"{len(heard) / seconds:.1f}",
        f"{_goodput(heard, seconds):.1f}",
        f"{_goodput(_whole(heard), seconds):.1f}",
        len(_whole(heard)),
        len(_accepted(heard)) - len(_whole(heard)),
        *times_ms([one.total_s for one in _accepted(heard)]),
        len(refused),
        *times_ms([one.total_s for one in refused]),
        f"{told}/{len(refused)}",
        ", ".join(f"{count} {reason}" for reason, count in others.items()) or "none",
    ]


def _goodput(heard: Sequence[Heard], seconds: float) -> float:
    """Chats a second that ended well while the load lasted."""
    if not heard:
        return 0.0
    ends = min(one.sent_at for one in heard) + seconds
    return sum(one.sent_at + one.total_s <= ends for one in _accepted(heard)) / seconds


def _p99(heard: Sequence[Heard]) -> float:
    return percentile([one.total_s for one in heard], 99)


if __name__ == "__main__":
    main()
