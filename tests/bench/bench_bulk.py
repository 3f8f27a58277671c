"""Bulk import: messages acknowledged a second, the rate of indexing, and bytes on disk.

The texts are made of the sample's words and distinct, so each one is embedded: indexing goes at
the speed of the embedding engine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from echomesh import NewMessage
from tests.bench import processes
from tests.bench.people import client_of, sample_history, wait_indexed, wait_whole
from tests.bench.report import heading, table
from tests.support.mesh import RunningMesh, running_mesh

# The folders of a data folder that grow with what is remembered.
_KEPT = {"Postgres": "postgres", "index": "memory/index"}
_STARTED = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Import into a fresh mesh."""
    parser = argparse.ArgumentParser(prog="bulk", description=__doc__)
    parser.add_argument("--messages", type=int, default=4_000)
    parser.add_argument("--users", type=int, default=8, help="they import at the same time")
    given = parser.parse_args()
    heading("bulk")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running_mesh(data) as mesh:
            asyncio.run(_measure(mesh, data, given))


def made_up(count: int, seed: int) -> list[NewMessage]:
    """`count` distinct messages of 5 to 40 words, one a minute."""
    chosen = random.Random(seed)  # noqa: S311 - the same texts in every run
    words = " ".join(message.text for message in sample_history(300)).split()
    return [
        NewMessage(
            "user",
            " ".join([*chosen.choices(words, k=chosen.randint(5, 40)), f"{seed}-{number}"]),
            speaker="Maya",
            time=_STARTED + timedelta(minutes=number),
        )
        for number in range(count)
    ]


async def _measure(mesh: RunningMesh, data: Path, given: argparse.Namespace) -> None:
    async with client_of(mesh) as client:
        users = [client.as_user(f"bulk-{number}") for number in range(given.users)]
        await users[0].remember("One to open everything.")
        await wait_whole(users[0])
        await wait_indexed(users)
        each = given.messages // given.users
        batches = [made_up(each, seed) for seed in range(given.users)]
        empty, cpu = _sizes(data), processes.cpu_s(mesh)
        began = time.monotonic()
        parts = zip(users, batches, strict=True)
        await asyncio.gather(*(user.import_messages("bulk", batch) for user, batch in parts))
        stored_s = time.monotonic() - began
        await wait_indexed(users)
        indexed_s = time.monotonic() - began
    spent = processes.spent_ms(cpu, processes.cpu_s(mesh), each * given.users)
    _show(each * given.users, stored_s, indexed_s, spent)
    _show_sizes(empty, _sizes(data), each * given.users)


def _show(messages: int, stored_s: float, indexed_s: float, spent: dict[str, float]) -> None:
    table(
        ["messages", "acknowledged/s", "indexed/s", "all acknowledged", "all indexed"],
        [
            [
                messages,
                f"{messages / stored_s:,.0f}",
                f"{messages / indexed_s:,.0f}",
                f"{stored_s:.1f} s",
                f"{indexed_s:.1f} s",
            ]
        ],
    )
    table(
        ["service", "CPU ms per message"],
        [[name, f"{value:.2f}"] for name, value in sorted(spent.items())],
    )


def _show_sizes(before: dict[str, int], after: dict[str, int], messages: int) -> None:
    rows: list[list[object]] = [
        [name, f"{(after[name] - before[name]) / messages:,.0f}"] for name in after
    ]
    table(["kept in", "bytes per message on disk"], rows)


def _sizes(data: Path) -> dict[str, int]:
    """Bytes on disk by part; Postgres' write-ahead log, which is recycled, does not count."""
    return {name: _size(data / folder) for name, folder in _KEPT.items()}


def _size(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if "pg_wal" not in path.parts)
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file())


if __name__ == "__main__":
    main()
