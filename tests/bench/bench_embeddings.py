"""Texts per second by length: the bare encoder, the engine, the service, sentence-transformers.

Every contender embeds the same distinct texts in turn, round after round, so that whatever else
the machine does hits all alike; the ratios are of the medians. sentence-transformers runs the same
weights from .bench-venv (tests/bench/peers/install.sh), on as many threads, in float32, as it
comes. "service" is the engine behind gRPC with `--clients` callers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.embeddings.batching import Priority
from services.embeddings.encoder import OnnxEncoder
from services.embeddings.engine import Engine, EngineLimits
from services.embeddings.metrics import EngineMetrics
from services.embeddings.model_folder import ensure_built
from services.embeddings.source import packaged_source
from services.runtime.clock import SystemClock
from tests.bench.embedding_service import EmbeddingService
from tests.bench.peers.process import Peer, installed
from tests.bench.report import heading, note, progress, table

Embed = Callable[[list[str]], None]
Contenders = dict[str, Embed]
# Words in a text, from and to; a word is about 1.1 tokens.
CLASSES = {
    "short (4-8 words)": (4, 8),
    "turn (15-40 words)": (15, 40),
    "long (150-220 words)": (150, 220),
    "mixed (4-220 words)": (4, 220),
}
STORY = (
    "we went to the old harbour on Sunday and my sister told me about her new job in the city "
    "where she will start in March after a long holiday with friends near the lake so I was happy"
)
WORDS = STORY.split()
ENGINE, SERVICE, PEER = "engine", "service over gRPC", "sentence-transformers"
REQUEST = 32


def main() -> None:
    """Measure each class of lengths with each contender."""
    given = _arguments()
    heading("embeddings")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch)
        encoder = OnnxEncoder(ensure_built(None, folder / "embeddings" / "models"))
        with _contenders(encoder, folder, given) as contenders:
            rows = [
                _row(name, _measure(name, lengths, contenders, given), contenders)
                for name, lengths in CLASSES.items()
            ]
    names = list(contenders)
    table(["texts", *(f"{name}, texts/s" for name in names), *_ratio_names(names)], rows)
    note(
        f"{encoder.info.version}; medians of {given.rounds} rounds of {given.texts} texts, "
        f"{given.threads} threads; the service has {given.clients} callers at once."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="embeddings", description=__doc__)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--data", type=Path, help="keeps the built model; default: a fresh folder")
    return parser.parse_args()


@contextmanager
def _contenders(
    encoder: OnnxEncoder, folder: Path, given: argparse.Namespace
) -> Iterator[Contenders]:
    """The contenders, in the order in which they take turns."""
    with EmbeddingService(folder, given.threads, given.clients) as service:
        contenders: Contenders = {
            "encoder, one by one": lambda texts: _one_by_one(encoder, texts),
            ENGINE: lambda texts: _engine(encoder, given.threads, texts),
            SERVICE: service.embed,
        }
        if not installed():
            progress("sentence-transformers is not installed: see tests/bench/peers/install.sh")
            yield contenders
            return
        model = str(packaged_source().folder)
        with Peer("embed.py", "--model", model, "--threads", str(given.threads)) as peer:
            yield contenders | {PEER: lambda texts: _ask(peer, texts)}


def _measure(
    name: str, lengths: tuple[int, int], contenders: Contenders, given: argparse.Namespace
) -> dict[str, float]:
    """Median texts per second by contender; texts are new in each round, for there is a cache."""
    rates: dict[str, list[float]] = {contender: [] for contender in contenders}
    for embed in contenders.values():
        embed(_texts(8, lengths, seed=-1))
    for number in range(given.rounds):
        texts = _texts(given.texts, lengths, seed=number)
        for contender, embed in contenders.items():
            began = time.perf_counter()
            embed(texts)
            rates[contender].append(len(texts) / (time.perf_counter() - began))
    progress(name)
    return {contender: statistics.median(values) for contender, values in rates.items()}


def _ratio_names(names: Sequence[str]) -> list[str]:
    ratios = [f"{SERVICE} / {ENGINE}"]
    return [*ratios, f"{ENGINE} / {PEER}"] if PEER in names else ratios


def _row(name: str, rates: dict[str, float], contenders: Contenders) -> list[object]:
    ratios = [f"{rates[SERVICE] / rates[ENGINE]:.0%}"]
    if PEER in contenders:
        ratios.append(f"{rates[ENGINE] / rates[PEER]:.2f}x")
    return [name, *(f"{rates[contender]:.0f}" for contender in contenders), *ratios]


def _texts(count: int, lengths: tuple[int, int], seed: int) -> list[str]:
    chosen = random.Random(seed)  # noqa: S311 - the same texts in every run
    drawn = [chosen.randint(*lengths) for _ in range(count)]
    return [" ".join([str(seed), *chosen.choices(WORDS, k=length - 1)]) for length in drawn]


def _one_by_one(encoder: OnnxEncoder, texts: list[str]) -> None:
    for text in texts:
        encoder.encode(encoder.tokenize([text]))


def _engine(encoder: OnnxEncoder, threads: int, texts: list[str]) -> None:
    async def work() -> None:
        limits = EngineLimits(threads=threads)
        engine = Engine(encoder, limits, SystemClock(), EngineMetrics())
        engine.start()
        requests = [texts[start : start + REQUEST] for start in range(0, len(texts), REQUEST)]
        await asyncio.gather(*(engine.embed(part, Priority.BULK, 600) for part in requests))
        await engine.close()

    asyncio.run(work())


def _ask(peer: Peer, texts: list[str]) -> None:
    peer.ask(texts=texts)


if __name__ == "__main__":
    main()
