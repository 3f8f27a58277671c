"""llama.cpp in our worker (gRPC over a unix socket) beside its own HTTP server, the same GGUF file.

Both have as many slots, threads and context, and the same requests in turn. The abort's time runs
from leaving the stream until the engine says that it is idle: ours in its heartbeat, the server in
its list of slots. After kill -9 our worker comes back by itself; the server is started by hand at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from services.models.engines.settings import LlamaCppModel
from tests.bench.engine_contenders import OURS, HttpServer, Worker
from tests.bench.engine_rounds import Plan, measure, times_of
from tests.bench.report import heading, note, table
from tests.support.gguf import small_model
from tests.support.llama_server import LlamaServer

THEIRS = "llama.cpp's server"


def main() -> None:
    """Measure both in turn and print them beside each other."""
    given = _arguments()
    heading("llamacpp")
    streams = [int(part) for part in given.streams.split(",")]
    plan = Plan(given.rounds, given.replies, given.tokens, given.aborts, streams, given.words)
    slots = max(streams)
    file = given.model or small_model()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"slots": slots, "threads": given.threads, "batch": given.batch}
        model = LlamaCppModel(path=file, context_length=given.context, **sizes)
        server = LlamaServer(file, context=given.context, **sizes)
        contenders = [Worker(model, Path(folder) / "w"), HttpServer(THEIRS, server, file.stem)]
        figures = asyncio.run(measure(contenders, plan))
    ours, theirs = (times_of(figures[name]) for name in (OURS, THEIRS))
    rows = [[name, ours[name], theirs[name], f"{ours[name] / theirs[name]:.2f}x"] for name in ours]
    table(["", OURS, THEIRS, "ratio"], rows)
    note(
        f"{file.name}, {slots} slots, {given.threads} thread(s), context {given.context}; "
        f"{given.rounds} rounds of {given.replies} replies of {given.tokens} tokens a stream after "
        f"prompts of {given.words} words, and of {given.aborts} aborts."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamacpp", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; default: SmolLM2-135M-Instruct")
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--replies", type=int, default=8, help="of each stream in each round")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=60, help="of each prompt")
    parser.add_argument("--aborts", type=int, default=25, help="in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
