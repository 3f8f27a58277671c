"""Texts per second by length: the bare encoder, the engine around it, and sentence-transformers.

Run: python -m tests.bench.bench_embeddings [--texts 400] [--threads 2] [--data DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.embeddings.batching import Priority
from services.embeddings.encoder import OnnxEncoder
from services.embeddings.engine import Engine, EngineLimits
from services.embeddings.metrics import EngineMetrics
from services.embeddings.model_folder import ensure_built
from services.embeddings.source import packaged_source
from services.runtime.clock import SystemClock

Contenders = dict[str, Callable[[list[str]], None]]
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


def main() -> None:
    """Measure each class of lengths with each contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="keeps the built model; default: a fresh folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        encoder = _open(given.data or Path(scratch))
        contenders: Contenders = {
            "encoder alone, one by one": lambda texts: _one_by_one(encoder, texts),
            "encoder alone, batches of 8 as they come": lambda texts: _unsorted(encoder, texts),
            f"engine, {given.threads} threads": lambda texts: _engine(encoder, given, texts),
        } | _sentence_transformers()
        for name, (least, most) in CLASSES.items():
            _compare(name, _texts(given.texts, least, most), contenders)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak resident: {peak // (1024 if sys.platform == 'linux' else 1024**2)} MB")


def _open(folder: Path) -> OnnxEncoder:
    began = time.perf_counter()
    built = ensure_built(None, folder)
    found = time.perf_counter()
    encoder = OnnxEncoder(built)
    print(f"{encoder.info.version}: built or found in {found - began:.2f} s, ", end="")
    print(f"opened in {time.perf_counter() - found:.2f} s")
    return encoder


def _texts(count: int, least: int, most: int) -> list[str]:
    chosen = random.Random(0)  # noqa: S311 - the same texts in every run
    lengths = [chosen.randint(least, most) for _ in range(count)]
    return [" ".join(chosen.choices(WORDS, k=length)) for length in lengths]


def _compare(name: str, texts: list[str], contenders: Contenders) -> None:
    print(name)
    for contender, embed in contenders.items():
        embed(texts[:8])
        wall, cpu = time.perf_counter(), time.process_time()
        embed(texts)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rate, each_ms = len(texts) / wall, 1000 * cpu / len(texts)
        print(f"  {contender:42s} {rate:8.0f} texts/s {each_ms:7.2f} ms CPU per text")


def _one_by_one(encoder: OnnxEncoder, texts: list[str]) -> None:
    for text in texts:
        encoder.encode(encoder.tokenize([text]))


def _unsorted(encoder: OnnxEncoder, texts: list[str]) -> None:
    for start in range(0, len(texts), 8):
        encoder.encode(encoder.tokenize(texts[start : start + 8]))


def _engine(encoder: OnnxEncoder, given: argparse.Namespace, texts: list[str]) -> None:
    async def work() -> None:
        limits = EngineLimits(threads=given.threads)
        engine = Engine(encoder, limits, SystemClock(), EngineMetrics())
        engine.start()
        requests = [texts[start : start + 64] for start in range(0, len(texts), 64)]
        await asyncio.gather(*(engine.embed(part, Priority.BULK, 600) for part in requests))
        await engine.close()

    asyncio.run(work())


def _sentence_transformers() -> Contenders:
    if importlib.util.find_spec("sentence_transformers") is None:
        print("sentence-transformers is not installed: nothing to compare with")
        return {}
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(packaged_source().folder), device="cpu")
    return {"sentence-transformers": lambda texts: _batches_of_32(model, texts)}


def _batches_of_32(model: Any, texts: list[str]) -> None:
    model.encode(texts, batch_size=32)


if __name__ == "__main__":
    main()
