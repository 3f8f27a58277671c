"""Who is right more often, by kind of message: the extractive responder or a language model.

A mesh imports the sample conversation. Each message of `answers_by_kind.jsonl` goes to its
extractive responder, and to a model that only writes down the prompt that routing makes for it;
that prompt is then given to a GGUF file in llama.cpp without any limit of time. So being right is
told apart from being in time, of which there is a table of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from echomesh import Client
from services.cli.sample import load_history
from services.models.domain import Finish, Generation, Message, Role, Sampling, State, Text
from services.models.engines.backend import EngineBackend
from services.models.engines.settings import LlamaCppModel
from services.routing.budget import FIRST_TEXT_S
from services.routing.classify import classify
from services.runtime.deadline import deadline_scope
from services.runtime.process import private_folder
from tests.bench.answers_judge import Asked, is_right
from tests.bench.locomo_prompts import PromptReader, prompt_reader
from tests.bench.people import client_of, wait_whole
from tests.bench.report import heading, note, progress, table, times_ms
from tests.support.gguf import small_model
from tests.support.mesh import running_mesh

EXTRACTIVE = "extractive"
QUESTIONS = Path(__file__).with_name("answers_by_kind.jsonl")
SPEAKER = "Maya"
_CALL_S = 300.0
_POLL_S = 0.05
# Enough for every answer; a small model that is let does not end.
_REPLY_TOKENS = 120
# Small, so that no batch takes so long on a busy machine that the worker counts as stuck.
_BATCH = 32


@dataclass(frozen=True)
class Reply:
    """One reply; a model that quotes nothing has used `prompt_tokens` for its prompt."""

    asked: Asked
    text: str
    right: bool
    first_text_s: float
    prompt_tokens: int = 0


def main() -> None:
    """Ask both and print how often each was right."""
    given = _arguments()
    heading("answers_by_kind")
    file = given.model or small_model()
    replies = asyncio.run(_ask_both(file, given))
    _show(replies)
    if given.replies:
        _write(given.replies, replies)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="answers_by_kind", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; default: SmolLM2-135M-Instruct")
    parser.add_argument("--tier", default="fast", help="bounds the prompt's length")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--replies", type=Path, help="writes every reply there, a JSON line each")
    return parser.parse_args()


def questions() -> list[Asked]:
    """Return the messages, in the order of the file."""
    lines = map(json.loads, QUESTIONS.read_text().splitlines())
    lists = ("says", "never")
    return [Asked(**line | {name: tuple(line.get(name, ())) for name in lists}) for line in lines]


async def _ask_both(file: Path, given: argparse.Namespace) -> dict[str, list[Reply]]:
    """The extractive replies, then the model's, when the mesh no longer takes any time."""
    async with prompt_reader() as reader:
        quoted, prompts = await asyncio.to_thread(_mesh_replies, reader, given.tier)
    written = []
    async with _loaded(file, given.threads) as backend:
        for asked, prompt in zip(questions(), prompts, strict=True):
            written.append(await _written(backend, asked, prompt))
            progress(f"{len(written)}: {asked.text}")
    return {EXTRACTIVE: quoted, file.stem: written}


def _mesh_replies(
    reader: PromptReader, tier: str
) -> tuple[list[Reply], list[list[dict[str, str]]]]:
    """Every extractive reply, and every prompt that routing makes for a language model."""
    with tempfile.TemporaryDirectory() as folder:
        with running_mesh(Path(folder) / "data", env=reader.environment) as mesh:
            return asyncio.run(_in_mesh(client_of(mesh), reader, tier))


async def _in_mesh(
    client: Client, reader: PromptReader, tier: str
) -> tuple[list[Reply], list[list[dict[str, str]]]]:
    async with client:
        await load_history(client, Console(stderr=True))
        await wait_whole(client)
        replies, prompts = [], []
        for asked in questions():
            replies.append(await _quoted(client, asked, tier))
            prompt, late = await reader.messages_for(client, asked.text, speaker=SPEAKER, tier=tier)
            assert not late, "recall came late: the machine is too busy"
            prompts.append(prompt)
        return replies, prompts


async def _quoted(client: Client, asked: Asked, tier: str) -> Reply:
    text, final = await client.reply(
        asked.text, model=EXTRACTIVE, tier=tier, store=False, speaker=SPEAKER
    )
    right = is_right(asked, text, quotes=bool(final.used_memory_ids))
    return Reply(asked, text, right, final.first_text_s or 0.0)


@asynccontextmanager
async def _loaded(file: Path, threads: int) -> AsyncIterator[EngineBackend]:
    """A GGUF file in its worker, ready."""
    with tempfile.TemporaryDirectory() as folder:
        model = LlamaCppModel(path=file, slots=1, threads=threads, batch=_BATCH)
        backend = EngineBackend(model, private_folder(Path(folder) / "w"))
        await backend.start()
        try:
            async with asyncio.timeout(_CALL_S):
                while backend.models()[0].state is not State.READY:
                    await asyncio.sleep(_POLL_S)
            yield backend
        finally:
            await backend.close()


async def _written(backend: EngineBackend, asked: Asked, prompt: list[dict[str, str]]) -> Reply:
    """What the model says to a prompt, greedily: the same each time."""
    messages = tuple(Message(Role(part["role"]), part["content"]) for part in prompt)
    sampling = Sampling(temperature=0, seed=1, max_tokens=_REPLY_TOKENS)
    began, first_s, tokens, texts = time.perf_counter(), 0.0, 0, []
    with deadline_scope(_CALL_S):
        async for event in backend.generate(
            Generation(messages, sampling=sampling), backend.models()[0]
        ):
            first_s = first_s or time.perf_counter() - began
            if isinstance(event, Text):
                texts.append(event.text)
            if isinstance(event, Finish):
                tokens = event.usage.prompt_tokens
    text = "".join(texts)
    return Reply(asked, text, is_right(asked, text, quotes=False), first_s, tokens)


def _show(replies: dict[str, list[Reply]]) -> None:
    kinds = list(dict.fromkeys(asked.kind for asked in questions()))
    rows: list[list[object]] = [_row(kind, kind, replies) for kind in kinds]
    rows.append(_row("**all**", "", replies))
    table(["kind of message", "routing calls it", *replies], rows)
    tiers = [f"within {tier.name.lower()}" for tier in FIRST_TEXT_S]
    header = ["first text", "p50", "p95", "p99", *tiers, "prompt tokens p50"]
    table(header, [_times(name, told) for name, told in replies.items()])
    note("Right of asked, by what they say (tests/bench/answers_judge.py).")


def _row(name: str, kind: str, replies: dict[str, list[Reply]]) -> list[object]:
    """One kind, or all of them if it is empty."""
    told = [[one for one in said if kind in ("", one.asked.kind)] for said in replies.values()]
    types = Counter(classify(one.asked.text).name.lower() for one in told[0]) if kind else ()
    rights = [f"{sum(one.right for one in said)}/{len(said)}" for said in told]
    return [name, ", ".join(types), *rights]


def _times(name: str, told: Sequence[Reply]) -> list[object]:
    times_s = [one.first_text_s for one in told]
    within = [
        f"{sum(s <= limit_s for s in times_s)}/{len(told)}" for limit_s in FIRST_TEXT_S.values()
    ]
    sizes = sorted(one.prompt_tokens for one in told)
    return [name, *times_ms(times_s), *within, sizes[len(sizes) // 2] or "-"]


def _write(path: Path, replies: dict[str, list[Reply]]) -> None:
    with path.open("w") as out:
        for name, told in replies.items():
            for one in told:
                line = {"by": name, "message": one.asked.text, "reply": one.text}
                out.write(json.dumps(line | {"right": one.right}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
