"""How many replies an upstream is asked for at once: it follows what the server can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.config import Upstream
from services.models.domain import Generation, Message, Role, State
from services.models.openai import backend as backend_module
from services.models.openai.backend import OpenAIBackend
from services.models.openai.first_text import FAR_BEYOND, SAMPLES, SLACK_S, FirstTextTimes
from services.models.openai.pace import Pace, Strained
from services.models.openai.upstream import Server
from services.runtime.clock import FakeClock, SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from tests.support.openai_double import (
    DONE,
    Answer,
    OpenAIDouble,
    delta,
    finish,
    openai_double,
    reply,
)
from tests.support.waiting import until

MOST = 8
PROMPT = 100
BEST_S = 0.1
LATE_S = FAR_BEYOND * BEST_S + SLACK_S + 0.1


def pace_of(clock: FakeClock, concurrency: int = MOST, queue: int = 0) -> Pace:
    told = Upstream(url="http://double/v1", concurrency=concurrency, queue=queue)
    return Pace(told, clock)


async def one(pace: Pace, clock: FakeClock, took_s: float, prompt: int | None = PROMPT) -> None:
    """A reply whose first text takes so long, while all other places are taken."""
    async with AsyncExitStack() as others:
        for _ in range(pace.limit - 1):
            await others.enter_async_context(pace.place())
        async with pace.place():
            with pace.first_text(prompt):
                clock.advance(took_s)


async def test_late_first_texts_lower_the_limit_to_one_and_timely_ones_raise_it_again() -> None:
    clock = FakeClock()
    pace = pace_of(clock)
    await one(pace, clock, BEST_S)
    for _ in range(20):
        await one(pace, clock, LATE_S)
    assert pace.limit == 1
    for _ in range(100):
        await one(pace, clock, BEST_S)
    assert pace.limit == MOST


async def test_a_server_that_stays_slower_is_taken_as_it_is() -> None:
    clock = FakeClock()
    pace = pace_of(clock)
    await one(pace, clock, BEST_S)
    for _ in range(SAMPLES + 100):
        await one(pace, clock, LATE_S)
    assert pace.limit == MOST


async def test_the_time_of_a_reply_that_comes_whole_tells_nothing() -> None:
    clock = FakeClock()
    pace = pace_of(clock)
    await one(pace, clock, BEST_S, prompt=None)
    await one(pace, clock, LATE_S, prompt=None)
    assert pace.limit == MOST


async def test_whoever_gives_up_waiting_for_a_late_first_text_lowers_the_limit() -> None:
    clock = FakeClock()
    pace = pace_of(clock)
    await one(pace, clock, BEST_S)
    for waited_s, limit in ((BEST_S, MOST), (LATE_S, 6)):
        with pytest.raises(asyncio.CancelledError), pace.first_text(PROMPT):
            clock.advance(waited_s)
            raise asyncio.CancelledError
        assert pace.limit == limit


async def test_a_strained_server_is_asked_less_once_for_all_tries_of_one_moment() -> None:
    clock = FakeClock()
    pace = pace_of(clock)
    tries = [pace.first_text(PROMPT) for _ in range(3)]
    for attempt in tries:
        attempt.__enter__()
    clock.advance(1.0)
    for attempt in tries:
        assert not attempt.__exit__(Strained, Strained(Reason.OVERLOADED, "full"), None)
    assert pace.limit == 6


async def test_a_server_that_is_back_is_asked_for_one_reply_at_first() -> None:
    clock = FakeClock()
    pace = pace_of(clock)
    pace.start_slowly()
    assert pace.limit == 1
    for _ in range(5):
        await one(pace, clock, BEST_S)
    assert pace.limit == 6


async def test_places_that_come_with_a_higher_limit_go_to_those_who_wait() -> None:
    clock = FakeClock()
    pace = pace_of(clock, queue=4)
    pace.start_slowly()
    running = asyncio.Event()

    async def wait() -> None:
        async with pace.place():
            running.set()

    async with pace.place():
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert not running.is_set()
        with pace.first_text(PROMPT):
            clock.advance(BEST_S)
        await asyncio.wait_for(running.wait(), 60)
    await waiter


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0, 100)), min_size=1))
def test_nothing_is_late_that_is_close_to_the_best_and_all_is_that_is_far_from_it(
    seen: list[tuple[int, float]],
) -> None:
    times = FirstTextTimes()
    for prompt, took_s in seen:
        times.add(prompt, took_s)
    prompt, took_s = seen[-1]
    assert not times.late(prompt, SLACK_S)
    assert times.late(prompt, FAR_BEYOND * took_s + SLACK_S + 0.001)
    assert not times.late(1 << 21, 1000.0)


@pytest.fixture
async def double() -> AsyncIterator[OpenAIDouble]:
    async with openai_double() as running:
        yield running


@asynccontextmanager
async def backend_of(double: OpenAIDouble, **settings: float) -> AsyncIterator[OpenAIBackend]:
    told = Upstream(**{"url": double.url, "timeout_s": 60.0, "retries": 0, **settings})
    server = Server(told)
    try:
        backend = OpenAIBackend(told, server, SystemClock())
        await backend.probe()
        yield backend
    finally:
        await server.close()


async def ask(backend: OpenAIBackend) -> None:
    request = Generation(messages=(Message(Role.USER, "Hi"),))
    with deadline_scope(60.0):
        async for _ in backend.generate(request, backend.models()[0]):
            pass


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_says_it_is_full_is_asked_less(double, status):
    double.answers = [Answer([b"{}"], status=status), reply("Yes")]
    async with backend_of(double) as backend:
        with pytest.raises(AppError):
            await ask(backend)
        assert backend.limit == 6
        assert backend.models()[0].state is State.READY, "it is full and not away"


async def test_the_limit_comes_down_to_what_the_server_can_take(double, monkeypatch):
    monkeypatch.setattr(backend_module, "_wait", lambda _: 0.01)
    double.capacity = 4
    double.answers = [Answer([delta("Yes"), finish(), DONE], pause_s=0.005)]
    async with backend_of(double, concurrency=32, queue=400, retries=10) as backend:
        asks = [ask(backend) for _ in range(400)]
        ends = await asyncio.gather(*asks, return_exceptions=True)
        assert backend.limit <= 3 * double.capacity
    assert all(end is None or isinstance(end, Strained) for end in ends)
    assert sum(end is None for end in ends) > len(ends) / 2
    assert double.refused


@pytest.mark.parametrize("before", [[], [delta("Hel")]])
async def test_a_server_that_falls_silent_is_asked_less(double, before):
    """Before its first text and in the middle of a reply."""
    double.answers = [Answer(before, hold=True)]
    async with backend_of(double, timeout_s=0.2) as backend:
        with pytest.raises(AppError):
            await ask(backend)
        assert backend.limit == 6


@pytest.mark.parametrize("status", [400, 500])
async def test_other_failures_say_nothing_of_how_much_it_can_do(double, status):
    double.answers = [Answer([b"{}"], status=status)]
    async with backend_of(double) as backend:
        with pytest.raises(AppError):
            await ask(backend)
        assert backend.limit == MOST


async def test_a_server_that_was_away_starts_slowly_and_a_new_one_does_not(double, monkeypatch):
    monkeypatch.setattr(backend_module, "PROBE_AWAY_S", 0.02)
    async with backend_of(double) as backend:
        assert backend.limit == MOST
        await double.stop()
        with pytest.raises(AppError):
            await ask(backend)
        assert backend.models()[0].state is State.AWAY
        await double.start()
        probing = asyncio.create_task(backend.keep_probing())

        async def back() -> bool:
            return backend.models()[0].state is State.READY

        await until(back, "the server is found again")
        probing.cancel()
        assert backend.limit == 1
        await asyncio.gather(*(ask(backend) for _ in range(MOST)))
        assert 4 <= backend.limit <= MOST


async def test_after_a_reply_broke_off_the_server_is_looked_at_at_once(double, monkeypatch):
    """Not when the next look at a server that is well is due."""
    monkeypatch.setattr(backend_module, "PROBE_READY_S", 3600.0)
    async with backend_of(double) as backend:
        probing = asyncio.create_task(backend.keep_probing())

        async def looked_at(times: int) -> bool:
            return double.looks >= times

        await until(lambda: looked_at(2), "the first look of those that go on")
        double.answers = [Answer([delta("Hel")], cut=True)]
        with pytest.raises(AppError):
            await ask(backend)
        await until(lambda: looked_at(3), "another look")
        probing.cancel()
