"""What the OpenAI door adds to a streaming upstream: time, and CPU for each request.

One upstream, whose first text comes after 20 ms, is asked directly, through the door (API key,
limits and tracing on, memory off), through routing by gRPC (the SDK), and, where they are
installed (tests/bench/peers/install.sh proxies), through LiteLLM's proxy and SMG, each with its
key. They take turns in every round. Added time is the difference of the percentiles; requests per
core are the requests over the CPU seconds of the processes named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from echomesh import Client, Text
from tests.bench import processes
from tests.bench.figures import percentile
from tests.bench.peers import proxies
from tests.bench.people import client_of
from tests.bench.profiling import Profile
from tests.bench.report import heading, note, progress, table
from tests.bench.sse_load import Address, Seen, load
from tests.support.mesh import RunningMesh, free_port_base, running_mesh, until
from tests.support.otlp import collecting

Run = Callable[[int, int], Awaitable[list[Seen]]]
# Of the mesh's services, those that a request with memory off passes through.
PATH = ("gateway", "routing", "models")
WARM_UP = 50


@dataclass
class Contender:
    """One way to the upstream: how to ask, and CPU seconds used so far by part."""

    name: str
    run: Run
    cpu_s: Callable[[], Mapping[str, float]]
    seen: dict[int, list[Seen]] = field(default_factory=dict)
    spent_s: dict[int, dict[str, float]] = field(default_factory=dict)

    async def measure(self, requests: int, parallel: int) -> None:
        """One round; what it saw is added to the earlier ones."""
        before = self.cpu_s()
        self.seen.setdefault(parallel, []).extend(await self.run(requests, parallel))
        spent = self.spent_s.setdefault(parallel, {})
        for part, after in self.cpu_s().items():
            spent[part] = spent.get(part, 0.0) + after - before[part]


def main() -> None:
    """Start all, measure in turns, print."""
    given = _arguments()
    heading("gateway")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, ports = Path(name), free_port_base()
        upstream = stack.enter_context(_upstream(ports, given))
        _, otlp = stack.enter_context(collecting())
        models = [{"url": upstream, "model": "tiny", "concurrency": 512, "queue": 512}]
        settings = {
            "ECHOMESH_MODELS_UPSTREAMS": json.dumps(models),
            "ECHOMESH_OTLP_ENDPOINT": otlp,
            "ECHOMESH_LOG_LEVEL": "warning",
        }
        mesh = stack.enter_context(running_mesh(folder / "data", env=settings))
        contenders = [_direct(ports), _door(mesh), *_peers(stack, folder, ports, upstream)]
        asyncio.run(_all(mesh, contenders, given))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gateway", description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", default="1,16")
    parser.add_argument("--first-ms", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--gap-ms", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="of the mesh (py-spy)")
    return parser.parse_args()


async def _all(mesh: RunningMesh, contenders: list[Contender], given: argparse.Namespace) -> None:
    async with client_of(mesh) as client:
        contenders.insert(2, _by_grpc(mesh, client))
        for contender in contenders:
            progress(f"warm up: {contender.name}")
            await contender.run(WARM_UP, 4)
        for parallel in (int(part) for part in given.parallel.split(",")):
            for turn in range(given.rounds):
                for contender in contenders:
                    progress(f"round {turn + 1}, {parallel} parallel: {contender.name}")
                    await contender.measure(given.requests, parallel)
            _show(contenders, parallel)
        if given.profile:
            with Profile(mesh) as profile:
                await contenders[1].run(given.requests, 16)
            profile.show(given.requests)


def _show(contenders: list[Contender], parallel: int) -> None:
    direct = contenders[0].seen[parallel]
    rows: list[list[object]] = []
    for contender in contenders:
        seen = [one for one in contender.seen[parallel] if not one.error]
        errors = len(contender.seen[parallel]) - len(seen)
        times = [
            _added(seen, direct, which, p, own=contender is contenders[0])
            for which in ("first_s", "total_s")
            for p in (50, 99)
        ]
        rows.append([contender.name, *times, _per_core(contender, parallel, len(seen)), errors])
    header = [f"{parallel} parallel", "added first text p50", "p99", "added whole p50", "p99"]
    table([*header, "requests/s per core", "errors"], rows)
    failed = [one.error for each in contenders for one in each.seen[parallel] if one.error]
    if failed:
        note(f"The first error: {failed[0]}")


def _added(seen: list[Seen], direct: list[Seen], which: str, percent: float, *, own: bool) -> str:
    """What a way adds to the direct one; of that one itself, its time."""
    if not seen:
        return "-"
    mine, base = (
        percentile([getattr(one, which) for one in each if not one.error], percent)
        for each in (seen, direct)
    )
    return f"{1000 * mine:.1f} ms" if own else f"+{1000 * (mine - base):.1f} ms"


def _per_core(contender: Contender, parallel: int, requests: int) -> str:
    """Requests for a second of CPU: of the first part alone, and of all parts together."""
    spent = contender.spent_s[parallel]
    if not spent or not requests:
        return "-"
    first = next(iter(spent))
    whole = f"{requests / sum(spent.values()):,.0f}"
    return whole if len(spent) == 1 else f"{requests / spent[first]:,.0f} ({first}), {whole} (all)"


def _direct(port: int) -> Contender:
    address = Address(port, "tiny", {})
    return Contender("no proxy", lambda n, p: load(address, n, p), dict)


def _door(mesh: RunningMesh) -> Contender:
    headers = {
        "authorization": f"Bearer {mesh.credentials.api_key}",
        "x-echomesh-memory": "off",
    }
    # The tier with the most patience: on a busy machine the mesh would sooner quote than wait.
    address = Address(int(mesh.file.http.rpartition(":")[2]), "echomesh-standard", headers)
    return Contender("the door", lambda n, p: load(address, n, p), lambda: _cpu_of(mesh, PATH))


def _by_grpc(mesh: RunningMesh, client: Client) -> Contender:
    async def run(requests: int, parallel: int) -> list[Seen]:
        left = iter(range(requests))
        seen: list[Seen] = []
        await asyncio.gather(*(_talk(client, left, seen) for _ in range(parallel)))
        return seen

    return Contender("routing by gRPC", run, lambda: _cpu_of(mesh, PATH[1:]))


async def _talk(client: Client, left: Iterator[int], seen: list[Seen]) -> None:
    text = "Tell me something about the sea, please."
    for _ in left:
        began, first_s = time.perf_counter(), 0.0
        async for frame in client.chat(text, tier="standard", store=False, recall=False):
            if isinstance(frame, Text) and not first_s:
                first_s = time.perf_counter() - began
        seen.append(Seen(first_s, time.perf_counter() - began))


def _cpu_of(mesh: RunningMesh, names: tuple[str, ...]) -> dict[str, float]:
    used = processes.cpu_s(mesh)
    return {name: used[name] for name in names}


def _peers(stack: ExitStack, folder: Path, ports: int, upstream: str) -> Iterator[Contender]:
    if not proxies.installed():
        progress("no peers: run tests/bench/peers/install.sh proxies")
        return
    starts = {"LiteLLM's proxy": proxies.litellm, "SMG": proxies.smg}
    for number, (name, start) in enumerate(starts.items(), 1):
        proxy = stack.enter_context(start(folder, ports + 10 * number, upstream))
        headers = {"authorization": f"Bearer {proxies.KEY}"}
        yield _peer(name, Address(proxy.port, "tiny", headers), proxy)


def _peer(name: str, address: Address, proxy: proxies.Proxy) -> Contender:
    return Contender(name, lambda n, p: load(address, n, p), lambda: {"proxy": proxy.cpu_s()})


@contextmanager
def _upstream(port: int, given: argparse.Namespace) -> Iterator[str]:
    pace = [str(given.first_ms), str(given.chunks), str(given.gap_ms)]
    command = [sys.executable, "-m", "tests.bench.sse_upstream", str(port), *pace]
    process = subprocess.Popen(command)
    try:
        until(lambda: _listens(port), 60.0, "the upstream's start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
