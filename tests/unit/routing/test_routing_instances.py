"""Several models services: who is asked for a reply, and what happens when they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from grpc.aio import UsageError

from services.routing.domain import (
    Finish,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Model,
    Sampling,
)
from services.routing.instances import ModelInstances
from services.routing.streams import Background
from services.runtime.errors import AppError, Reason

EXTRACTIVE = Model("extractive", generative=False)


class Service:
    """A models service as scripted: what it serves, says, and fails with."""

    def __init__(self, *models: Model) -> None:
        self.models: Sequence[Model] = models
        self.asked = 0
        self.fails: AppError | None = None
        self.fails_later = False
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.listing = asyncio.Event()
        self.closed = False
        self.connected = True

    async def list_models(self) -> Sequence[Model]:
        self.listing.set()
        await self.may_end.wait()
        # A closed channel ends its calls as if they were cancelled, and takes no others.
        if self.closed:
            raise asyncio.CancelledError
        if self.fails is not None:
            raise self.fails
        return self.models

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if self.closed:
            raise UsageError("Channel is closed.")
        self.asked += 1
        if self.fails is not None and not self.fails_later:
            raise self.fails
        yield "Hello"
        if self.fails is not None:
            raise self.fails
        await self.may_end.wait()
        yield Finish(FinishReason.STOP, request.model)

    async def close(self) -> None:
        self.closed = True


def lost(reason: Reason = Reason.DEPENDENCY_UNAVAILABLE) -> AppError:
    return AppError(reason, "lost")


class World:
    """Services by address, and the instances made of them."""

    def __init__(self, **services: Service) -> None:
        self.services = services
        self.background = Background()
        self.instances = ModelInstances(lambda address: services[address], self.background)

    async def known(self, *addresses: str) -> list[Model]:
        """Let these be all there are; return the models they serve."""
        self.instances.know(addresses)
        return list(await self.instances.list_models())

    def generate(self, model: str) -> AsyncGenerator[GenerationEvent, None]:
        return self.instances.generate(GenerationRequest(model, (), Sampling()))

    async def reply(self, model: str) -> list[GenerationEvent]:
        async with aclosing(self.generate(model)) as events:
            return [event async for event in events]


async def test_every_model_is_listed_once_and_ready_if_it_is_so_anywhere() -> None:
    world = World(
        a=Service(Model("small"), Model("big", ready=False), EXTRACTIVE),
        b=Service(Model("big"), Model("other"), EXTRACTIVE),
    )
    models = await world.known("a", "b")
    assert [(model.id, model.ready) for model in models] == [
        ("small", True),
        ("big", True),
        ("other", True),
        ("extractive", True),
    ]


async def test_a_reply_is_asked_of_an_instance_that_serves_the_model() -> None:
    world = World(a=Service(Model("small")), b=Service(Model("big")))
    await world.known("a", "b")
    await world.reply("big")
    assert (world.services["a"].asked, world.services["b"].asked) == (0, 1)


async def test_equals_take_turns_and_a_busy_one_waits_for_the_others() -> None:
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a", "b")
    for _ in range(4):
        await world.reply("m")
    assert (world.services["a"].asked, world.services["b"].asked) == (2, 2)
    async with aclosing(world.generate("m")) as busy:
        await anext(busy)
        for _ in range(3):
            await world.reply("m")
    assert sorted(service.asked for service in world.services.values()) == [3, 5]


@pytest.mark.parametrize(
    "reason", [Reason.DEPENDENCY_UNAVAILABLE, Reason.OVERLOADED, Reason.DRAINING]
)
async def test_an_instance_that_is_lost_before_it_speaks_is_passed_over(reason: Reason) -> None:
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a", "b")
    world.services["a"].fails = lost(reason)
    assert [await world.reply("m") for _ in range(2)] == [
        ["Hello", Finish(FinishReason.STOP, "m")] for _ in range(2)
    ]


async def test_one_that_breaks_off_after_its_first_text_is_not_asked_again_unseen() -> None:
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a", "b")
    for service in world.services.values():
        service.fails, service.fails_later = lost(), True
    with pytest.raises(AppError):
        await world.reply("m")
    assert sum(service.asked for service in world.services.values()) == 1


async def test_a_refusal_that_says_nothing_of_the_instance_is_told_at_once() -> None:
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a", "b")
    for service in world.services.values():
        service.fails = lost(Reason.CONTEXT_TOO_LONG)
    with pytest.raises(AppError):
        await world.reply("m")
    assert sum(service.asked for service in world.services.values()) == 1


async def test_what_a_silent_instance_serves_is_left_out_until_it_answers_again() -> None:
    world = World(a=Service(Model("small")), b=Service(Model("big")))
    assert len(await world.known("a", "b")) == 2
    world.services["b"].fails = lost()
    assert [model.id for model in await world.instances.list_models()] == ["small"]
    world.services["b"].fails = None
    assert len(await world.instances.list_models()) == 2


async def test_while_nobody_says_what_they_serve_what_was_known_last_is_asked() -> None:
    world = World(a=Service(Model("m")))
    await world.known("a")
    world.services["a"].fails = lost(Reason.OVERLOADED)
    with pytest.raises(AppError, match="models is away"):
        await world.instances.list_models()
    world.services["a"].fails = None
    assert await world.reply("m")


async def test_an_instance_that_left_ends_its_streams_and_is_let_go_of_then() -> None:
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a")
    world.services["a"].may_end.clear()
    async with aclosing(world.generate("m")) as events:
        await anext(events)
        await world.known("b")
        await asyncio.sleep(0)
        assert not world.services["a"].closed
        world.services["a"].may_end.set()
        assert [event async for event in events] == [Finish(FinishReason.STOP, "m")]
    await world.background.close(5.0)
    assert world.services["a"].closed
    assert not world.services["b"].closed
    assert world.instances.addresses == ["b"]


async def test_one_that_left_while_another_was_asked_is_asked_no_more() -> None:
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a", "b")
    first = world.services["a"]
    first.fails = lost()

    async def meanwhile(request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        world.instances.know(["a"])
        await world.background.close(5.0)
        async for event in Service.generate(first, request):
            yield event

    first.generate = meanwhile  # type: ignore[method-assign]
    with pytest.raises(AppError, match="lost"):
        await world.reply("m")
    assert (first.asked, world.services["b"].asked) == (1, 0)


async def test_when_all_are_replaced_those_that_came_are_asked_unheard() -> None:
    """As when the API server tells of the pods behind the target that was asked until then."""
    world = World(a=Service(Model("m")), b=Service(Model("m")))
    await world.known("a")
    world.instances.know(["b"])
    assert await world.reply("m")
    assert world.services["b"].asked == 1


async def test_one_that_leaves_while_it_says_what_it_serves_is_let_go_of_then() -> None:
    """The others are listed nevertheless."""
    world = World(a=Service(Model("small")), b=Service(Model("big")))
    await world.known("a", "b")
    leaving = world.services["b"]
    leaving.may_end.clear()
    leaving.listing.clear()
    listed = asyncio.ensure_future(world.instances.list_models())
    await leaving.listing.wait()
    world.instances.know(["a"])
    for _ in range(3):
        await asyncio.sleep(0)
    assert not leaving.closed
    leaving.may_end.set()
    assert "small" in [model.id for model in await listed]
    await world.background.close(5.0)
    assert leaving.closed


async def test_nobody_to_ask_is_said_to_be_away() -> None:
    world = World(a=Service(Model("m")))
    for asked in (world.reply("m"), world.instances.list_models()):
        with pytest.raises(AppError, match="models is away"):
            await asked
    await world.known("a")
    assert await world.instances.reached()
    world.services["a"].connected = False
    assert not await world.instances.reached()
