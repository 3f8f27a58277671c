"""Fuzzed and mutated messages to every RPC of a mesh.

    python -m tests.faults.attack.fuzz --messages 20000 [--each] [--seed 1]

starts a mesh of its own in a temporary folder, sends that many messages over all RPCs in turn
(`--each`: to each of them), prints how they were answered, and ends with 1 if an answer was not one
that the contract knows, or a process was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from echomesh import Client
from echomesh._session import Deadline
from tests.faults.attack.answers import Answer, defects
from tests.faults.attack.rpcs import Caller, Rpc, all_rpcs
from tests.faults.attack.shapes import Shapes
from tests.support.mesh import RunningMesh, running_mesh

PARALLEL = 16
_SHOWN = 20


@dataclass
class FuzzReport:
    """What came back: counts by answer, and each defect with the seed that shows it again."""

    sent: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def add(self, rpc: Rpc, seed: int, answer: Answer) -> None:
        """Count an answer."""
        self.sent += 1
        self.answers[answer.reason or answer.code.name] += 1
        wrong = defects(answer)
        if answer.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            wrong.append("no answer in time")
        self.found += [f"{rpc} seed {seed}: {defect}" for defect in wrong]

    def __str__(self) -> str:
        rate = self.sent / max(self.seconds, 1e-9)
        lines = [f"{self.sent} messages in {self.seconds:.0f} s ({rate:.0f}/s)"]
        lines += [f"  {count:7d}  {name}" for name, count in self.answers.most_common()]
        lines += [f"{len(self.found)} defects", *self.found[:_SHOWN]]
        return "\n".join(lines)


async def fuzz(
    mesh: RunningMesh, messages: int, *, seed: int = 1, each: bool = False
) -> FuzzReport:
    """Send messages to every RPC, as the operator and, on mesh listeners, as a service."""
    report, caller = FuzzReport(), Caller(mesh)
    rpcs = all_rpcs()
    total = messages * len(rpcs) if each else messages
    jobs = iter(range(total))
    started = time.monotonic()
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        ids = await _ids_of(client)

        async def worker() -> None:
            for job in jobs:
                token = await client._tokens.access_token(Deadline(CALL_S))
                rpc, own = rpcs[job % len(rpcs)], seed * 1_000_000_000 + job
                data = Shapes(own, ids).request(rpc.method.input_type)
                report.add(rpc, own, await caller.call(rpc, data, token))

        await asyncio.gather(*(worker() for _ in range(PARALLEL)))
    await caller.close()
    report.seconds = time.monotonic() - started
    return report


CALL_S = 10.0


async def _ids_of(client: Client) -> Sequence[str]:
    """Ids that stand for something, so that messages get past the first look-up."""
    memory = await client.remember("The fuzzer keeps its key under the mat.")
    await client.reply("Hello there.", conversation_id="fuzzed", request_id="fuzzed-turn")
    message = [m async for m in client.messages("fuzzed")][0]
    return [memory.id, message.id, "fuzzed", "fuzzed-turn"]


def pids(mesh: RunningMesh) -> dict[str, int]:
    """The process of each service: one that crashed would be another one."""
    services = ("auth", "embeddings", "memory", "models", "routing")
    return {name: mesh.service(name).pid for name in services}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz every RPC of a mesh.")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--each", action="store_true", help="that many to each RPC")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _lines(report: FuzzReport, lost: bool) -> Iterator[str]:
    yield str(report)
    yield "a process was lost" if lost else "every process lives"


def main() -> int:
    """Run from the command line; return the exit status."""
    options = _arguments()
    with tempfile.TemporaryDirectory() as folder, running_mesh(Path(folder) / "data") as mesh:
        before = pids(mesh)
        work = fuzz(mesh, options.messages, seed=options.seed, each=options.each)
        report = asyncio.run(work)
        lost = pids(mesh) != before
    print("\n".join(_lines(report, lost)))  # noqa: T201 - a command prints
    return 1 if report.found or lost else 0


if __name__ == "__main__":
    sys.exit(main())
