"""The instant tier: time to the first frame, CPU by service, and where that goes.

`--profile` samples every service with py-spy (from .bench-venv, see peers/install.sh) during one
more round and prints the share of CPU by area and by function.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from echomesh import Client
from tests.bench import processes
from tests.bench.people import WARM_UP, Heard, chat_once, client_of, sample_mix, settle, wait_whole
from tests.bench.profiling import Profile
from tests.bench.report import heading, note, table, times_ms
from tests.support.mesh import RunningMesh, running_mesh


def main() -> None:
    """Measure at each number of parallel chats, then profile if asked to."""
    given = _arguments()
    heading("chat")
    with tempfile.TemporaryDirectory() as folder:
        with running_mesh(Path(folder) / "data") as mesh:
            asyncio.run(_measure(mesh, given))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chat", description=__doc__)
    parser.add_argument("--chats", type=int, default=200, help="at each number of parallel ones")
    parser.add_argument("--parallel", default="1,10")
    parser.add_argument("--memories", type=int, default=200, help="of each person")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--native", action="store_true", help="profile C and Rust frames too")
    return parser.parse_args()


async def _measure(mesh: RunningMesh, given: argparse.Namespace) -> None:
    parallels = [int(part) for part in given.parallel.split(",")]
    async with client_of(mesh) as client:
        users = await settle(client, max(parallels), given.memories)
        await wait_whole(users[0])
        await _round(users, WARM_UP * len(users))
        times, costs = [], {}
        for parallel in parallels:
            before = processes.cpu_s(mesh)
            heard = await _round(users[:parallel], given.chats)
            costs[parallel] = processes.spent_ms(before, processes.cpu_s(mesh), len(heard))
            times += _rows(parallel, heard)
        table(
            ["parallel chats", "seen by the SDK", "p50", "p95", "p99", "errors", "degraded"], times
        )
        _show_costs(costs)
        if given.profile:
            with Profile(mesh, native=given.native) as profile:
                heard = await _round(users, given.chats)
            profile.show(len(heard))


async def _round(users: Sequence[Client], chats: int) -> list[Heard]:
    """Every user chats without a pause until `chats` are done together."""
    texts = itertools.islice(itertools.cycle(sample_mix()), chats)
    heard: list[Heard] = []

    async def talk(user: Client) -> None:
        for text in texts:
            heard.append(await chat_once(user, text, "talk"))

    await asyncio.gather(*(talk(user) for user in users))
    return heard


def _rows(parallel: int, heard: Sequence[Heard]) -> list[list[object]]:
    errors = sum(bool(one.error) for one in heard)
    degraded = sum(bool(one.degraded) for one in heard)
    well = [one for one in heard if not one.error]
    kinds = {
        "first frame": [one.first_frame_s for one in well],
        "first text": [one.first_text_s for one in well],
        "whole reply": [one.total_s for one in well],
    }
    return [[parallel, kind, *times_ms(s), errors, degraded] for kind, s in kinds.items()]


def _show_costs(costs: dict[int, dict[str, float]]) -> None:
    names = sorted(next(iter(costs.values())))
    names.sort(key=lambda name: name == processes.OWN)
    rows: list[list[object]] = [
        [name, *(f"{cost[name]:.2f}" for cost in costs.values())] for name in names
    ]
    mesh_sum = [sum(v for k, v in cost.items() if k != processes.OWN) for cost in costs.values()]
    rows.append(["**sum of the mesh**", *(f"**{value:.2f}**" for value in mesh_sum)])
    table(["CPU ms per message", *(f"{parallel} parallel" for parallel in costs)], rows)
    note("Each message stores two turns, recalls, embeds the question, and later indexes both.")


if __name__ == "__main__":
    main()
