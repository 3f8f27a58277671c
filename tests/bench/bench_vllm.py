"""vLLM in our worker (gRPC) beside `vllm serve` (HTTP) and the bare `AsyncLLM`, one tiny model.

All three have the same settings, but that the server has its own default of one token in a piece
(`--server-interval`), and get the same requests in turn. Whoever asks does so from one process,
which for `AsyncLLM` is the engine's front itself. The CPU counted is that of the front: our
worker, the HTTP server, this process. The engine cores behind them do the same work. It runs in
the engine's environment: `make bench-engine`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil

from services.models.engines.engine import Engine
from services.models.engines.settings import VllmModel
from services.models.engines.vllm.loading import load
from tests.bench.engine_contenders import OURS, HttpServer, Worker, asked
from tests.bench.engine_rounds import Plan, measure, times_of
from tests.bench.report import heading, note, table
from tests.support.tiny_model import make_tiny_model
from tests.support.vllm_server import MODEL, VllmServer

THEIRS, BARE = "vllm serve", "AsyncLLM"
_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


class Bare:
    """`AsyncLLM` in this process, without any wire."""

    name = BARE

    def __init__(self, model: VllmModel) -> None:
        self._model = model
        self._engine: Engine | None = None

    async def start(self) -> float:
        """Start it and return the seconds until it is ready."""
        began = time.perf_counter()
        self._engine = await load(self._model, lambda _: None, lambda _: None)
        return time.perf_counter() - began

    async def stop(self) -> None:
        """Stop it."""
        assert self._engine is not None
        await self._engine.close()

    async def reply(self, prompt: str, tokens: int) -> AsyncGenerator[int, None]:
        """See `Contender.reply`: past our own engine class, with the tokens of its prompt."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine: Any = self._engine
        request = asked(prompt, tokens)
        params = SamplingParams(
            temperature=0, seed=1, max_tokens=tokens, output_kind=RequestOutputKind.DELTA
        )
        count = 0
        ids = await engine._prompts.of(request)
        async for output in engine._llm.generate(
            {"prompt_token_ids": ids}, params, engine._new_id()
        ):
            count += len(output.outputs[0].token_ids)
            yield 0
        yield count

    async def idle(self) -> bool:
        """Return whether the engine works on nothing."""
        assert self._engine is not None
        return not self._engine.load().running

    def pid(self) -> int:
        """Return this process's id."""
        return os.getpid()

    async def restart(self) -> float:
        """Kill the engine core and make another engine."""
        began = time.perf_counter()
        for child in _cores():
            child.kill()
        await self.stop()
        await self.start()
        return time.perf_counter() - began


def _cores() -> list[psutil.Process]:
    """Return the engine cores of this process; the other contenders have sessions of their own."""
    mine = os.getsid(0)
    children = psutil.Process().children()
    return [c for c in children if os.getsid(c.pid) == mine and c.memory_info().rss > 200 << 20]


def main() -> None:
    """Measure all in turn and print them beside each other."""
    given = _arguments()
    heading("vllm")
    if importlib.util.find_spec("vllm") is None:
        raise SystemExit("vllm is not installed in this environment: run `make bench-engine`")
    os.environ.update(_ENVIRONMENT)
    streams = [int(part) for part in given.streams.split(",")]
    plan = Plan(given.rounds, given.replies, given.tokens, given.aborts, streams, given.words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = VllmModel(
            model=str(make_tiny_model(folder / "tiny")),
            dtype="bfloat16",
            slots=max(streams),
            kv_cache_bytes=64 << 20,
            eager=True,
        )
        contenders = [
            Worker(model, folder / "w"),
            HttpServer(THEIRS, VllmServer(model, folder / "names", given.server_interval), MODEL),
            Bare(model),
        ]
        figures = asyncio.run(measure(contenders, plan))
    ours, theirs, bare = (times_of(figures[name]) for name in (OURS, THEIRS, BARE))
    rows = [
        [name, ours[name], theirs[name], f"{ours[name] / theirs[name]:.2f}x", bare[name]]
        for name in ours
    ]
    table(["", OURS, THEIRS, "ratio", BARE], rows)
    note(
        f"A Llama of half a million weights, {max(streams)} slots; {given.rounds} rounds of "
        f"{given.replies} replies of {given.tokens} tokens a stream after prompts of "
        f"{given.words} words, and of {given.aborts} aborts. Tokens in a piece: ours "
        f"{model.stream_interval}, the server's {given.server_interval}."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm", description=__doc__)
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replies", type=int, default=6, help="of each stream in each round")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=60, help="of each prompt")
    parser.add_argument("--aborts", type=int, default=25, help="in each round")
    parser.add_argument("--server-interval", type=int, default=1, help="tokens in its pieces")
    return parser.parse_args()


if __name__ == "__main__":
    main()
