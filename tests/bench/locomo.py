"""Recall and answers on real conversations, through the public API.

    python tests/bench/locomo.py --data FILE [--person third|first] [--chat]

FILE is in LoCoMo's format. The conversations are imported as an application would, one user each;
every question with gold evidence is asked by Recall, and with `--chat` by Chat too. All scores are
computed here, from the ids and texts that the mesh returned.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # as a script, only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from echomesh import Client
from tests.bench.locomo_ask import Asked, Corpus, imported, questions_of
from tests.bench.locomo_chat import print_chat
from tests.bench.locomo_data import CATEGORIES, Dialogue, load
from tests.bench.locomo_prompts import PromptReader, prompt_reader
from tests.bench.locomo_scores import mean, percentile, recall_at
from tests.support.mesh import running_mesh

CUTOFFS = (5, 10, 20)
LIMIT = max(CUTOFFS)
DATA_VARIABLE = "ECHOMESH_LOCOMO"


@dataclass(frozen=True)
class Found:
    """What Recall returned for one question: the data's turn ids, best first, and its seconds."""

    asked: Asked
    ranked: Sequence[str]
    seconds: float
    degraded: bool

    def score(self, k: int) -> float:
        """Its recall at `k`."""
        return recall_at(self.asked.question.evidence, self.ranked, k)


def main() -> None:
    """Read the options, run, print."""
    options = _options()
    try:
        dialogues = load(options.data)
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"no such data: {options.data}: {error!r}") from None
    asyncio.run(_run(options, dialogues))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--person", choices=("third", "first"), default="third")
    parser.add_argument("--chat", action="store_true", help="ask through Chat too")
    parser.add_argument("--address", help="host:port of a running mesh; default: start one")
    parser.add_argument("--api-key", help="of an app user of that mesh")
    options = parser.parse_args()
    if options.data is None:
        parser.error(f"give --data FILE or set {DATA_VARIABLE}: a file in LoCoMo's format")
    if bool(options.address) != bool(options.api_key):
        parser.error("--address and --api-key go together")
    options.data = Path(options.data)
    return options


async def _run(options: argparse.Namespace, dialogues: Sequence[Dialogue]) -> None:
    async with _mesh(options) as (client, prompts):
        corpora, turns, seconds = [], 0, 0.0
        for dialogue in dialogues:
            askers = dialogue.speakers if options.person == "first" else dialogue.speakers[:1]
            for asker in askers:
                started = time.monotonic()
                corpora.append(await imported(client, dialogue, asker))
                seconds += time.monotonic() - started
                turns += len(dialogue.turns)
        print(f"imported and indexed {turns} turns in {seconds:.1f} s")
        await _print_recall(corpora, options.person)
        if options.chat:
            await print_chat(corpora, options.person, prompts)


@asynccontextmanager
async def _mesh(
    options: argparse.Namespace,
) -> AsyncIterator[tuple[Client, PromptReader | None]]:
    """The mesh asked for, or one of its own, whose model only writes down its prompts."""
    if options.address:
        async with Client(options.address, api_key=options.api_key) as client:
            yield client, None
        return
    with tempfile.TemporaryDirectory() as folder:
        async with prompt_reader() as prompts:
            mesh = running_mesh(Path(folder) / "data", env=prompts.environment)
            # In a thread: the reader must answer while the mesh starts.
            running = await asyncio.to_thread(mesh.__enter__)
            try:
                key = running.credentials.api_key
                async with Client(running.file.address, api_key=key) as client:
                    yield client, prompts
            finally:
                await asyncio.to_thread(mesh.__exit__, None, None, None)


async def _print_recall(corpora: Sequence[Corpus], person: str) -> None:
    found = []
    for corpus in corpora:
        for asked in questions_of(corpus, person):
            found.append(await _recall(corpus, asked))
    print(_line("overall", found))
    for number, name in CATEGORIES.items():
        print(_line(name, [one for one in found if one.asked.question.category == number]))
    times = [one.seconds * 1000 for one in found]
    shares = ", ".join(f"p{p} {percentile(times, p / 100):.0f} ms" for p in (50, 95, 99))
    degraded = sum(one.degraded for one in found)
    print(f"latency   {shares} ({len(times)} in a row, {degraded} degraded), {person} person")


async def _recall(corpus: Corpus, asked: Asked) -> Found:
    started = time.monotonic()
    answer = await corpus.client.recall(asked.text, limit=LIMIT, asker=asked.asker)
    seconds = time.monotonic() - started
    ranked = [corpus.turn_of[hit.memory.id] for hit in answer.hits]
    return Found(asked, ranked, seconds, bool(answer.degraded))


def _line(name: str, found: Sequence[Found]) -> str:
    scores = "  ".join(
        f"recall@{k} {100 * mean([one.score(k) for one in found]):5.1f}" for k in CUTOFFS
    )
    return f"{name:14s}{scores}  ({len(found)} questions)"


if __name__ == "__main__":
    main()
