"""Engines beside each other: the same requests to each in turn, round after round.

Whatever else the machine does hits all contenders alike; each round begins with another one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from tests.bench.figures import percentile

_POLL_S = 0.001
_ABORT_AFTER = 3
_STORY = "tell the story of a sister in a harbour town who found a letter last winter and"


class Contender(Protocol):
    """An engine and the way to it."""

    name: str

    async def start(self) -> float:
        """Start it and return how many seconds it took until it takes requests."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...

    def reply(self, prompt: str, tokens: int) -> AsyncGenerator[int, None]:
        """Stream a reply: 0 for each text, and at the end how many tokens it had."""
        ...

    async def idle(self) -> bool:
        """Return whether nothing is generated any more."""
        ...

    def pid(self) -> int:
        """Return the process id of the engine as it runs now."""
        ...

    async def restart(self) -> float:
        """Kill the engine as kill -9 does; return the seconds until it takes requests again."""
        ...


@dataclass
class Figures:
    """What was measured of one contender; seconds everywhere, one entry for each reply or round."""

    load_s: float = 0.0
    first_text_s: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)
    """Tokens a second of all streams together, by how many streams there were."""
    cpu_s: float = 0.0
    caller_cpu_s: float = 0.0
    tokens: int = 0
    abort_s: list[float] = field(default_factory=list)
    restart_s: list[float] = field(default_factory=list)

    def per_1000(self, cpu_s: float) -> float:
        """Return CPU milliseconds for each thousand tokens."""
        return 1000 * cpu_s / self.tokens * 1000 if self.tokens else 0.0


@dataclass(frozen=True)
class Plan:
    """How much is asked: `replies` of `tokens` by each number of `streams`, in each round."""

    rounds: int
    replies: int
    tokens: int
    aborts: int
    streams: Sequence[int]
    prompt_words: int


async def measure(contenders: Sequence[Contender], plan: Plan) -> dict[str, Figures]:
    """Run all rounds and return what was measured, by contender."""
    figures = {contender.name: Figures() for contender in contenders}
    for contender in contenders:
        figures[contender.name].load_s = await contender.start()
        await _reply(contender, _prompt(plan, -1, 0), plan.tokens)
    for number in range(plan.rounds):
        turn = number % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            await _round(contender, figures[contender.name], plan, number)
    for contender in contenders:
        await contender.stop()
    return figures


async def _round(contender: Contender, figures: Figures, plan: Plan, number: int) -> None:
    for streams in plan.streams:
        await _load(contender, figures, plan, number, streams)
    for index in range(plan.aborts):
        figures.abort_s.append(await _abort(contender, _prompt(plan, number, 1000 + index)))
    figures.restart_s.append(await contender.restart())
    await _reply(contender, _prompt(plan, number, 2000), plan.tokens)


async def _load(
    contender: Contender, figures: Figures, plan: Plan, number: int, streams: int
) -> None:
    """So many streams without a pause until all replies are given."""
    waiting = iter(range(plan.replies * streams))
    tokens = 0

    async def stream() -> None:
        nonlocal tokens
        for index in waiting:
            first_s, count = await _reply(
                contender, _prompt(plan, number, 100 * streams + index), plan.tokens
            )
            tokens += count
            if streams == 1:
                figures.first_text_s.append(first_s)

    engine, caller = psutil.Process(contender.pid()), psutil.Process()
    before, own, began = _cpu_s(engine), _cpu_s(caller), time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(streams)))
    figures.rates.setdefault(streams, []).append(tokens / (time.perf_counter() - began))
    figures.cpu_s += _cpu_s(engine) - before
    figures.caller_cpu_s += _cpu_s(caller) - own
    figures.tokens += tokens


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _reply(contender: Contender, prompt: str, tokens: int) -> tuple[float, int]:
    """Seconds to the first text, and how many tokens came."""
    began, first_s, count = time.perf_counter(), 0.0, 0
    async with aclosing(contender.reply(prompt, tokens)) as events:
        async for event in events:
            first_s = first_s or time.perf_counter() - began
            count += event
    return first_s, count


async def _abort(contender: Contender, prompt: str) -> float:
    """Leave a long reply after a few texts; the seconds until the engine has stopped."""
    heard = 0
    async with aclosing(contender.reply(prompt, 400)) as events:
        async for _ in events:
            heard += 1
            if heard == _ABORT_AFTER:
                break
        began = time.perf_counter()
    while not await contender.idle():
        await asyncio.sleep(_POLL_S)
    return time.perf_counter() - began


def _prompt(plan: Plan, number: int, index: int) -> str:
    """A prompt that begins like no other, so that nothing of it is cached."""
    words = itertools.islice(itertools.cycle(_STORY.split()), plan.prompt_words)
    return f"{number} {index}: {' '.join(words)}"


def times_of(figures: Figures) -> dict[str, float]:
    """Return the figures in the table's order and units."""
    rows = {"load, s": figures.load_s}
    rows |= {
        f"first text p{percent}, ms": 1000 * percentile(figures.first_text_s, percent)
        for percent in (50, 95)
    }
    rows |= {
        f"tokens/s, {streams} stream{'s' * (streams > 1)}": percentile(rates, 50)
        for streams, rates in figures.rates.items()
    }
    rows["CPU ms per 1,000 tokens, engine"] = figures.per_1000(figures.cpu_s)
    rows["CPU ms per 1,000 tokens, caller"] = figures.per_1000(figures.caller_cpu_s)
    rows |= {
        f"abort p{percent}, ms": 1000 * percentile(figures.abort_s, percent) for percent in (50, 99)
    }
    rows["back after kill -9, s"] = percentile(figures.restart_s, 50)
    return rows
