"""What holds for the texts of many requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from services.embeddings.backlog import QueueLimits
from services.embeddings.batching import BatchLimits, Priority
from services.embeddings.engine import Engine, EngineLimits
from services.embeddings.metrics import EngineMetrics
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason
from services.runtime.metrics import REGISTRY
from tests.support.encoders import FakeEncoder

LIMITS = EngineLimits(threads=1, queue=QueueLimits(texts=4, text_bytes=1000))
NOW, LATER = Priority.INTERACTIVE, Priority.BULK


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(encoder: FakeEncoder, clock: FakeClock) -> AsyncIterator[Engine]:
    engine = Engine(encoder, LIMITS, clock, EngineMetrics())
    engine.start()
    yield engine
    encoder.held.set()
    await engine.close()


def queued(priority: Priority) -> float | None:
    labels = {"priority": priority.name.lower()}
    return REGISTRY.get_sample_value("echomesh_embeddings_queue_texts", labels)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds; fails after 5 s."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


async def occupy(engine: Engine, encoder: FakeEncoder) -> asyncio.Task[object]:
    """Hold the only inference thread with one batch."""
    encoder.held.clear()
    task: asyncio.Task[object] = asyncio.create_task(engine.embed(["occupied"], NOW, 60))
    await until(encoder.begun.is_set)
    return task


async def test_results_come_in_the_order_of_the_texts(engine: Engine):
    found = await engine.embed(["b", "a a a", "c"], NOW, 60)
    assert [int(np.argmax(one.vector)) for one in found] == [1, 0, 2]
    assert [one.tokens for one in found] == [1, 3, 1]


async def test_no_texts_give_no_vectors(engine: Engine):
    assert await engine.embed([], NOW, 60) == []


async def test_a_text_is_computed_once_and_then_comes_from_the_cache(
    engine: Engine, encoder: FakeEncoder
):
    first = await engine.embed(["same", "same"], NOW, 60)
    second = await engine.embed(["same"], NOW, 60)
    assert encoder.encoded == ["same"]
    assert first[0] is first[1] is second[0]


async def test_the_same_text_in_flight_is_computed_once(engine: Engine, encoder: FakeEncoder):
    held = await occupy(engine, encoder)
    requests = [asyncio.create_task(engine.embed(["twin"], NOW, 60)) for _ in range(3)]
    await until(lambda: queued(NOW) == 1)
    encoder.held.set()
    await asyncio.gather(held, *requests)
    assert encoder.encoded == ["occupied", "twin"]


async def test_a_waiter_who_leaves_does_not_cancel_the_others(engine: Engine, encoder: FakeEncoder):
    held = await occupy(engine, encoder)
    leaving = asyncio.create_task(engine.embed(["shared"], NOW, 60))
    staying = asyncio.create_task(engine.embed(["shared"], NOW, 60))
    await until(lambda: queued(NOW) == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    encoder.held.set()
    assert len(await staying) == 1
    await held


async def test_what_nobody_waits_for_any_more_is_never_computed(
    engine: Engine, encoder: FakeEncoder
):
    held = await occupy(engine, encoder)
    leaving = asyncio.create_task(engine.embed(["forgotten"], NOW, 60))
    await until(lambda: queued(NOW) == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert queued(NOW) == 0
    encoder.held.set()
    await held
    await engine.embed(["next"], NOW, 60)
    assert encoder.encoded == ["occupied", "next"]


async def test_a_text_asked_for_again_after_everyone_left_is_computed(
    engine: Engine, encoder: FakeEncoder
):
    held = await occupy(engine, encoder)
    leaving = asyncio.create_task(engine.embed(["again"], NOW, 60))
    await until(lambda: queued(NOW) == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    coming = asyncio.create_task(engine.embed(["again"], NOW, 60))
    await until(lambda: queued(NOW) == 1)
    encoder.held.set()
    assert len(await coming) == 1
    await held


async def test_a_text_whose_batch_runs_is_finished_and_kept_for_later(
    engine: Engine, encoder: FakeEncoder
):
    held = await occupy(engine, encoder)
    held.cancel()
    await asyncio.wait([held])
    encoder.held.set()
    await engine.embed(["occupied"], NOW, 60)
    assert encoder.encoded == ["occupied"]


async def test_what_expired_in_the_queue_is_dropped(
    engine: Engine, encoder: FakeEncoder, clock: FakeClock
):
    held = await occupy(engine, encoder)
    late = asyncio.create_task(engine.embed(["late"], NOW, 5))
    patient = asyncio.create_task(engine.embed(["patient"], NOW, 60))
    await until(lambda: queued(NOW) == 2)
    clock.advance(10)
    encoder.held.set()
    with pytest.raises(AppError) as caught:
        await late
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    await asyncio.gather(held, patient)
    assert encoder.encoded == ["occupied", "patient"]


async def test_a_full_queue_refuses_the_whole_request_and_says_when_to_retry(
    engine: Engine, encoder: FakeEncoder
):
    held = await occupy(engine, encoder)
    waiting = asyncio.create_task(engine.embed(["a", "b", "c"], NOW, 60))
    await until(lambda: queued(NOW) == 3)
    with pytest.raises(AppError) as caught:
        await engine.embed(["d", "e"], NOW, 60)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.metadata == {"queue": "embeddings"}
    assert (caught.value.retry_after_s or 0) >= 0.1
    assert queued(NOW) == 3
    encoder.held.set()
    await asyncio.gather(held, waiting)


async def test_long_texts_fill_the_queue_too(engine: Engine, encoder: FakeEncoder):
    held = await occupy(engine, encoder)
    waiting = asyncio.create_task(engine.embed(["x" * 900], NOW, 60))
    await until(lambda: queued(NOW) == 1)
    with pytest.raises(AppError, match="too many texts"):
        await engine.embed(["y" * 200], NOW, 60)
    encoder.held.set()
    await asyncio.gather(held, waiting)


async def test_a_queue_full_of_imports_takes_questions(engine: Engine, encoder: FakeEncoder):
    held = await occupy(engine, encoder)
    imports = asyncio.create_task(engine.embed(["a", "b", "c", "d"], LATER, 60))
    await until(lambda: queued(LATER) == 4)
    question = asyncio.create_task(engine.embed(["question"], NOW, 60))
    await until(lambda: engine.ready == 5)
    encoder.held.set()
    await asyncio.gather(held, imports, question)
    assert encoder.encoded[1] == "question"


async def test_an_import_that_somebody_asks_for_becomes_interactive(
    engine: Engine, encoder: FakeEncoder
):
    held = await occupy(engine, encoder)
    imports = asyncio.create_task(engine.embed(["dull", "long " * 40, "wanted"], LATER, 60))
    await until(lambda: queued(LATER) == 3)
    question = asyncio.create_task(engine.embed(["wanted"], NOW, 60))
    await until(lambda: queued(NOW) == 1 and engine.ready == 3)
    encoder.held.set()
    await asyncio.gather(held, imports, question)
    assert encoder.encoded[1] == "wanted"


async def test_texts_of_several_requests_share_a_batch(engine: Engine, encoder: FakeEncoder):
    held = await occupy(engine, encoder)
    requests = [asyncio.create_task(engine.embed([text], NOW, 60)) for text in "abcd"]
    await until(lambda: engine.ready == 4)
    encoder.held.set()
    await asyncio.gather(held, *requests)
    assert sorted(encoder.batches[1]) == ["a", "b", "c", "d"]


async def test_an_error_of_the_encoder_reaches_every_waiter_and_is_not_kept(
    engine: Engine, encoder: FakeEncoder
):
    encoder.error = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        await engine.embed(["text"], NOW, 60)
    encoder.error = None
    assert len(await engine.embed(["text"], NOW, 60)) == 1


@pytest.mark.parametrize("step", ["tokenize", "encode"])
async def test_a_text_that_breaks_the_encoder_harms_no_other_request(
    engine: Engine, encoder: FakeEncoder, step: str
):
    encoder.poison["bad"] = step
    held = await occupy(engine, encoder)
    good = asyncio.create_task(engine.embed(["good"], NOW, 60))
    bad = asyncio.create_task(engine.embed(["bad"], NOW, 60))
    await until(lambda: queued(NOW) == 2)
    encoder.held.set()
    assert len(await good) == 1
    with pytest.raises(ValueError, match=f"poison at {step}"):
        await bad
    await held


async def test_a_panic_in_native_code_ends_the_request_and_not_the_engine(
    engine: Engine, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
):
    class Panic(BaseException):
        pass

    def panicking(_: object) -> None:
        raise Panic("index out of bounds")

    with monkeypatch.context() as broken:
        broken.setattr(encoder, "tokenize", panicking)
        with pytest.raises(RuntimeError, match="broke down"):
            await engine.embed(["text"], NOW, 60)
    assert len(await engine.embed(["text"], NOW, 60)) == 1


async def test_closing_ends_what_waits_and_refuses_what_comes(encoder: FakeEncoder):
    engine = Engine(encoder, LIMITS, FakeClock(), EngineMetrics())
    engine.start()
    held = await occupy(engine, encoder)
    await engine.close()
    encoder.held.set()
    for call in (held, engine.embed(["more"], NOW, 60)):
        with pytest.raises(AppError) as caught:
            await call
        assert caught.value.reason is Reason.DRAINING


async def test_inference_leaves_the_event_loop_free(engine: Engine, encoder: FakeEncoder):
    held = await occupy(engine, encoder)
    turns = 0
    for _ in range(100):
        await asyncio.sleep(0)
        turns += 1
    assert turns == 100
    assert not held.done()
    encoder.held.set()
    await held


async def test_two_threads_compute_two_batches_at_once(encoder: FakeEncoder):
    limits = EngineLimits(threads=2, batches=BatchLimits(texts=1))
    engine = Engine(encoder, limits, FakeClock(), EngineMetrics())
    engine.start()
    encoder.held.clear()
    both = asyncio.create_task(engine.embed(["one", "two"], NOW, 60))
    await until(lambda: len(encoder.batches) == 2)
    encoder.held.set()
    await both
    await engine.close()


async def test_the_cache_keeps_within_its_bytes(encoder: FakeEncoder):
    other = FakeEncoder()
    size = other.encode(other.tokenize(["a"]))[0].size_bytes
    limits = EngineLimits(threads=1, cache_bytes=2 * size)
    engine = Engine(encoder, limits, FakeClock(), EngineMetrics())
    engine.start()
    for text in ("a", "b", "c", "a"):
        await engine.embed([text], NOW, 60)
    assert encoder.encoded == ["a", "b", "c", "a"]
    await engine.close()
