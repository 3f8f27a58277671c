"""What traces cost a chat: none leave, a collector takes them, and one that is dead or slow.

The kinds take turns, each with a mesh of its own, so that a busy minute of the machine hits all.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import processes
from tests.bench.people import WARM_UP, Heard, chat_once, client_of, sample_mix, settle, wait_whole
from tests.bench.report import heading, note, table, times_ms
from tests.support.mesh import RunningMesh, metric, running_mesh
from tests.support.otlp import absent, collecting, silent

MEMORIES = 100


@contextmanager
def _none() -> Iterator[str]:
    yield ""


@contextmanager
def _well() -> Iterator[str]:
    with collecting() as (_, endpoint):
        yield endpoint


KINDS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "no traces leave": _none,
    "a collector takes them": _well,
    "the collector is dead": absent,
    "the collector never answers": silent,
}


@dataclass
class Measured:
    """All rounds of one kind: chats, CPU milliseconds of the mesh for each, and spans lost."""

    heard: list[Heard] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    lost: float = 0.0


def main() -> None:
    """Measure each kind in turn, several times."""
    parser = argparse.ArgumentParser(prog="collector", description=__doc__)
    parser.add_argument("--chats", type=int, default=200, help="in each round")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    heading("collector")
    measured = {kind: Measured() for kind in KINDS}
    for _, (kind, collector) in itertools.product(range(given.rounds), KINDS.items()):
        with tempfile.TemporaryDirectory() as folder, collector() as endpoint:
            env = {"ECHOMESH_OTLP_ENDPOINT": endpoint} if endpoint else {}
            with running_mesh(Path(folder) / "data", env=env) as mesh:
                asyncio.run(_round(mesh, given.chats, measured[kind]))
    _show(measured)


async def _round(mesh: RunningMesh, chats: int, into: Measured) -> None:
    """One person chats without a pause."""
    async with client_of(mesh) as client:
        (user,) = await settle(client, 1, MEMORIES)
        await wait_whole(user)
        texts = list(itertools.islice(itertools.cycle(sample_mix()), WARM_UP + chats))
        for text in texts[:WARM_UP]:
            await chat_once(user, text, "talk")
        before = processes.cpu_s(mesh)
        into.heard += [await chat_once(user, text, "talk") for text in texts[WARM_UP:]]
        spent = processes.spent_ms(before, processes.cpu_s(mesh), chats)
        into.cpu_ms.append(sum(ms for name, ms in spent.items() if name != processes.OWN))
        addresses = mesh.file.metrics.values()
        into.lost += sum(metric(each, "echomesh_spans_dropped_total") for each in addresses)


def _show(measured: dict[str, Measured]) -> None:
    rows: list[list[object]] = []
    for kind, each in measured.items():
        well = [one for one in each.heard if not one.error]
        first = times_ms([one.first_text_s for one in well], (50, 95))
        whole = times_ms([one.total_s for one in well], (50, 95))
        cpu = f"{min(each.cpu_ms):.1f} to {max(each.cpu_ms):.1f}"
        errors = len(each.heard) - len(well)
        rows.append([kind, *first, *whole, cpu, errors, round(each.lost)])
    columns = ["first text p50", "p95", "whole reply p50", "p95", "CPU ms a message"]
    table(["traces", *columns, "errors", "spans lost"], rows)
    note("CPU is that of the whole mesh, by round; a collector in this process is not part of it.")


if __name__ == "__main__":
    main()
