"""Recall@10, ingest and recall's latency on one data set: the mesh, mem0, a plain vector memory.

All three get every turn as "Speaker: text" (the mesh gets speaker, text and time apart, as its API
has them) and use the same MiniLM weights. See peers/memories.py for how mem0 is run. Questions come
one after the other; the peers are called in their own process, the mesh over gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from services.embeddings.source import packaged_source
from tests.bench.locomo_ask import imported, questions_of
from tests.bench.locomo_data import MULTI_HOP, Dialogue, Question, load
from tests.bench.locomo_scores import mean, recall_at
from tests.bench.peers.process import Peer, require
from tests.bench.people import client_of, wait_whole
from tests.bench.report import heading, note, progress, table, times_ms
from tests.support.mesh import running_mesh

LIMIT = 10
_BATCH = 50
DATA_VARIABLE = "ECHOMESH_LOCOMO"
Found = tuple[Question, Sequence[str], float]
PEERS = {"mem0 (infer=False)": "mem0", "plain vectors": "plain"}


def main() -> None:
    """Measure each in turn on the same conversations."""
    given = _arguments()
    require()
    heading("peers")
    dialogues = load(given.data)[: given.conversations]
    rows = [_row("Echomesh", dialogues, *asyncio.run(_mesh(dialogues, given.questions)))]
    for name, kind in PEERS.items():
        progress(name)
        rows.append(_row(name, dialogues, *_peer(kind, dialogues, given.questions)))
    header = ["memory", "recall@10", "multi-hop", "questions", "ingested turns/s"]
    table([*header, "recall p50", "p95"], rows)
    note("Ingest counts until everything can be found by all signals (indexed).")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="peers", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--conversations", type=int, help="the first so many; default: all")
    parser.add_argument("--questions", type=int, help="of each conversation; default: all")
    given = parser.parse_args()
    if given.data is None:
        # Not an error: `python -m tests.bench` runs everything that can run here.
        raise SystemExit(f"peers: give --data FILE or set {DATA_VARIABLE} (LoCoMo's format)")
    given.data = Path(given.data)
    return given


async def _mesh(dialogues: Sequence[Dialogue], most: int | None) -> tuple[float, list[Found]]:
    """Seconds to ingest, and what was found for each question."""
    seconds = 0.0
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        with running_mesh(Path(folder) / "data") as mesh:
            async with client_of(mesh) as client:
                await client.remember("One to open everything.")
                await wait_whole(client)
                for dialogue in dialogues:
                    began = time.perf_counter()
                    corpus = await imported(client, dialogue, dialogue.speakers[0])
                    seconds += time.perf_counter() - began
                    for asked in list(questions_of(corpus, "third"))[:most]:
                        began = time.perf_counter()
                        answer = await corpus.client.recall(asked.text, limit=LIMIT)
                        took = time.perf_counter() - began
                        ids = [corpus.turn_of[hit.memory.id] for hit in answer.hits]
                        found.append((asked.question, ids, took))
    return seconds, found


def _peer(kind: str, dialogues: Sequence[Dialogue], most: int | None) -> tuple[float, list[Found]]:
    seconds = 0.0
    found: list[Found] = []
    with Peer("memories.py", "--kind", kind, "--model", str(packaged_source().folder)) as peer:
        for dialogue in dialogues:
            items = [
                {"id": turn.id, "text": f"{turn.speaker}: {turn.text}"} for turn in dialogue.turns
            ]
            for start in range(0, len(items), _BATCH):
                part = items[start : start + _BATCH]
                seconds += peer.ask(op="add", user=dialogue.name, items=part)["seconds"]
            for question in dialogue.questions[:most]:
                answer = peer.ask(op="search", user=dialogue.name, query=question.text, limit=LIMIT)
                found.append((question, answer["ids"], answer["seconds"]))
    return seconds, found


def _row(
    name: str, dialogues: Sequence[Dialogue], seconds: float, found: Sequence[Found]
) -> list[object]:
    turns = sum(len(dialogue.turns) for dialogue in dialogues)
    multi_hop = [one for one in found if one[0].category == MULTI_HOP]
    times = times_ms([took for _, _, took in found], (50, 95))
    return [name, _score(found), _score(multi_hop), len(found), f"{turns / seconds:.0f}", *times]


def _score(found: Sequence[Found]) -> str:
    scores = [recall_at(question.evidence, ids, LIMIT) for question, ids, _ in found]
    return f"{100 * mean(scores):.1f} %"


if __name__ == "__main__":
    main()
