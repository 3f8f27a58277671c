"""Recall's latency by the number of memories, with the question's embedding, on the edge index.

`--users 1` puts all memories into one user's; more users share them evenly, and each question is
asked of one of them. **Documents have generated vectors** (see memory_process.py): the work of a
search does not depend on what they mean, and the quality of recall is measured elsewhere
(`locomo`). Questions come one after the other; no gRPC hop is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.memory.model import NewMessage, Owner
from services.memory.recaller import Question
from services.runtime.deadline import deadline_scope
from tests.bench.memory_process import MemoryProcess, memory_process
from tests.bench.people import WARM_UP, sample_history, sample_mix
from tests.bench.report import heading, note, progress, table, times_ms

_BATCH = 500
_IMPORTERS = 4
_STARTED = datetime(2020, 1, 1, tzinfo=UTC)
_LIMIT_S = 30.0


def main() -> None:
    """Fill step by step, and ask at each size."""
    parser = argparse.ArgumentParser(prog="recall", description=__doc__)
    parser.add_argument("--sizes", default="1000,5000", help="memories in all, ascending")
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--questions", type=int, default=100)
    given = parser.parse_args()
    heading("recall")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), given))


async def _measure(folder: Path, given: argparse.Namespace) -> None:
    owners = [Owner("bench", f"user-{number}") for number in range(given.users)]
    rows, before = [], 0
    async with memory_process(folder) as memory:
        for size in [int(part) for part in given.sizes.split(",")]:
            filling_s = await _fill(memory, owners, before, size)
            rows.append(await _ask(memory, owners, size, (size - before) / filling_s, given))
            before = size
    header = ["memories", "users", "stored and indexed/s", "recall p50", "p95", "p99"]
    table([*header, "degraded", "index + Postgres, bytes per memory"], rows)
    note("Document vectors are generated; questions are embedded for real.")


async def _fill(memory: MemoryProcess, owners: Sequence[Owner], before: int, size: int) -> float:
    """Bring the memories in all to `size`; returns the seconds until all are indexed."""
    words = " ".join(message.text for message in sample_history(300)).split()
    each, had = size // len(owners), before // len(owners)
    places = asyncio.Semaphore(_IMPORTERS)

    async def fill(owner: Owner) -> None:
        async with places:
            for start in range(had, each, _BATCH):
                batch = _messages(words, owner, start, min(each, start + _BATCH))
                with deadline_scope(_LIMIT_S):
                    await memory.store.append_messages(owner, "bench", batch, batch[-1].said_at)

    began = time.monotonic()
    await asyncio.gather(*(fill(owner) for owner in owners))
    progress(f"{size} stored after {time.monotonic() - began:.0f} s")
    await memory.settle()
    progress(f"{size} indexed after {time.monotonic() - began:.0f} s")
    return time.monotonic() - began


def _messages(words: Sequence[str], owner: Owner, first: int, last: int) -> list[NewMessage]:
    chosen = random.Random(f"{owner.user_id}-{first}")  # noqa: S311 - the same in every run
    return [
        NewMessage(
            message_id=uuid.uuid4(),
            request_id=uuid.uuid4().hex,
            role="user",
            speaker="Maya",
            text=" ".join(chosen.choices(words, k=chosen.randint(5, 40))),
            said_at=_STARTED + timedelta(minutes=number),
            metadata={},
            body_sha256=number.to_bytes(8, "big"),
        )
        for number in range(first, last)
    ]


async def _ask(
    memory: MemoryProcess,
    owners: Sequence[Owner],
    size: int,
    rate: float,
    given: argparse.Namespace,
) -> list[object]:
    chosen = random.Random(size)  # noqa: S311 - the same questions in every run
    texts = sample_mix()
    seconds: list[float] = []
    degraded: Counter[str] = Counter()
    for number in range(given.questions + WARM_UP):
        # A question of its own each time: the engine would know the same one's vector.
        question = Question(f"{chosen.choice(texts)} {number} {size}", limit=10)
        began = time.perf_counter()
        with deadline_scope(_LIMIT_S):
            answer = await memory.recaller.recall(chosen.choice(owners), question)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
            degraded.update(answer.degraded)
    missed = ", ".join(f"{count} {name}" for name, count in degraded.items()) or "0"
    bytes_each = f"{_disk_bytes(memory.folder) / size:,.0f}"
    return [size, len(owners), f"{rate:,.0f}", *times_ms(seconds), missed, bytes_each]


def _disk_bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if "pg_wal" not in path.parts)
    kept = (path for path in files if path.is_file() and "models" not in path.parts)
    return sum(path.stat().st_blocks * 512 for path in kept)


if __name__ == "__main__":
    main()
