"""What is counted of each model's replies, however they end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    Message,
    ModelCard,
    Role,
    State,
    Text,
    Usage,
)
from services.models.observing import model_gauges, observed
from services.runtime.errors import AppError, Reason
from services.runtime.metrics import REGISTRY

ASKED = Generation((Message(Role.USER, "Where is it?"),))


def card(name: str, state: State = State.READY, **more: int) -> ModelCard:
    return ModelCard(name, "openai", state, **more)  # type: ignore[arg-type]


def value(name: str, **labels: str) -> float:
    """A metric as it stands."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def reply(error: Exception | None = None) -> AsyncGenerator[Event, None]:
    """One text and a finish, or a failure after the text."""
    yield Text("It is ")
    if error is not None:
        raise error
    yield Text("here.")
    yield Finish(FinishReason.STOP, Usage(70, 9, 60), "m")


async def test_a_whole_reply_counts_with_its_tokens_and_its_time_to_first_text() -> None:
    async with aclosing(observed(reply(), ASKED, card("whole"))) as events:
        seen = [event async for event in events]
    assert [type(event) for event in seen] == [Text, Text, Finish]
    assert value("echomesh_model_requests_total", model="whole", outcome="ok") == 1
    assert value("echomesh_model_first_text_seconds_count", model="whole") == 1
    tokens = {
        kind: value("echomesh_model_tokens_total", model="whole", kind=kind)
        for kind in ("prompt", "cached", "completion")
    }
    assert tokens == {"prompt": 70, "cached": 60, "completion": 9}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AppError(Reason.MODEL_UNAVAILABLE, "away"), "MODEL_UNAVAILABLE"),
        (ValueError("a defect"), "ValueError"),
    ],
)
async def test_a_reply_that_breaks_off_counts_by_its_reason(error: Exception, outcome: str) -> None:
    name = f"breaks-{outcome}"
    with pytest.raises(type(error)):
        async with aclosing(observed(reply(error), ASKED, card(name))) as events:
            async for _ in events:
                pass
    assert value("echomesh_model_requests_total", model=name, outcome=outcome) == 1


async def test_a_reply_that_its_reader_leaves_counts_as_cancelled_and_ends_the_model() -> None:
    source = reply()
    async with aclosing(observed(source, ASKED, card("left"))) as events:
        await anext(events)
    assert value("echomesh_model_requests_total", model="left", outcome="cancelled") == 1
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_a_reader_that_leaves_after_the_finish_has_a_whole_reply() -> None:
    async with aclosing(observed(reply(), ASKED, card("read"))) as events:
        async for event in events:
            if isinstance(event, Finish):
                break
    assert value("echomesh_model_requests_total", model="read", outcome="ok") == 1


def test_every_model_is_told_with_its_one_state_and_its_replies() -> None:
    cards = [card("a", running=2, waiting=3), card("b", State.AWAY)]
    state, running, waiting = model_gauges(lambda: cards)
    on = {(s.labels["model"], s.labels["state"]) for s in state.samples if s.value}
    assert on == {("a", "ready"), ("b", "away")}
    assert [sample.value for sample in running.samples] == [2, 0]
    assert [sample.value for sample in waiting.samples] == [3, 0]
