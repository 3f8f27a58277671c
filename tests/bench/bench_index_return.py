"""How soon the index has caught up after it was away, with memories waiting for it."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from services.runtime.embedded import EmbeddedPostgres
from tests.support.index_world import World, index_world, numbered, remember
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

PROMISED_S = 10.0
"""For up to 1,000 memories."""


async def measure(folder: Path, pending: int) -> tuple[float, float]:
    """Seconds from the index's return until it equals the tables: killed, and cut off."""
    embedded = EmbeddedPostgres(folder / "postgres")
    await embedded.start()
    try:
        database = await PostgresServer(embedded).create_database("memory")
        async with index_world(folder, database) as world, world.memory() as memory:
            await until(world.in_step, "the start")
            world.qdrant.kill()
            await remember(memory, *numbered(range(pending)))
            await asyncio.to_thread(world.qdrant.start)
            killed = await _until_in_step(world)
            world.network.partition()
            await remember(memory, *numbered(range(pending, 2 * pending)))
            # Long enough for every connection to be given up and tried again in vain.
            await asyncio.sleep(15)
            world.network.heal()
            return killed, await _until_in_step(world)
    finally:
        await embedded.stop()


async def _until_in_step(world: World) -> float:
    started = time.monotonic()
    await until(world.in_step, "catching up")
    return time.monotonic() - started


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="index_return", description=__doc__)
    parser.add_argument("--pending", type=int, default=1000, help="memories that wait")
    pending = parser.parse_args().pending
    with tempfile.TemporaryDirectory(prefix="echomesh-bench-") as folder:
        killed, cut_off = asyncio.run(measure(Path(folder), pending))
    print(f"promised: {PROMISED_S:.0f} s for 1,000; embeddings are a stand-in that costs nothing")
    for what, seconds in (("killed and started", killed), ("cut off and healed", cut_off)):
        print(f"{what} with {pending} waiting: in step after {seconds:.1f} s")
