"""The models services of a mesh, each with models of its own: who serves what, and whom to ask.

Instances come and go as discovery tells. Each is asked what it serves, as often as the catalog
asks; a reply is asked of the least busy one that serves the model, and of the next one if that is
lost before it has said anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from services.routing.domain import GenerationEvent, GenerationRequest, Model
from services.routing.ports import ModelsPort
from services.routing.streams import Background
from services.runtime.errors import AppError, Reason, unavailable
from services.runtime.logs import get_logger

# What says something of one instance only: another one may do better.
ELSEWHERE = frozenset(
    {
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.DRAINING,
        Reason.OVERLOADED,
        Reason.MODEL_UNAVAILABLE,
        Reason.NOT_FOUND,
    }
)


class Connection(ModelsPort, Protocol):
    """One models service, which can be let go of."""

    @property
    def connected(self) -> bool:
        """Whether it is reached now."""
        ...

    async def close(self) -> None:
        """Close the connection; running calls end."""
        ...


@dataclass
class Instance:
    """One models service: `models` by id as it last said, `running` calls, and whether it left.

    `silent`: it did not answer when it was last asked what it serves. `asked` counts up over all
    instances with each reply, so that equals take turns.
    """

    address: str
    connection: Connection
    models: Mapping[str, Model] = field(default_factory=dict)
    running: int = 0
    asked: int = 0
    silent: bool = False
    gone: bool = False


class ModelInstances:
    """`ModelsPort` over any number of models services."""

    def __init__(self, connect: Callable[[str], Connection], background: Background) -> None:
        self._connect = connect
        self._background = background
        self._instances: dict[str, Instance] = {}
        self._asked = 0

    def know(self, addresses: Collection[str]) -> None:
        """Take these as all the instances there are; streams of one that left go on."""
        for address in sorted(set(addresses) - set(self._instances)):
            self._instances[address] = Instance(address, self._connect(address))
        for address in sorted(set(self._instances) - set(addresses)):
            left = self._instances.pop(address)
            left.gone = True
            self._let_go(left)
        get_logger().info("models_instances", addresses=sorted(self._instances))

    @property
    def addresses(self) -> list[str]:
        """Where the instances are."""
        return sorted(self._instances)

    async def reached(self) -> bool:
        """Whether any instance is reached now."""
        # All are looked at: an idle connection begins to be made.
        return True in [instance.connection.connected for instance in self._instances.values()]

    async def close(self) -> None:
        """Close every connection."""
        for instance in self._instances.values():
            await instance.connection.close()
        self._instances.clear()

    async def list_models(self) -> Sequence[Model]:
        """Ask all instances; return every model once, ready if it is so anywhere.

        What one that does not answer serves is left out until it does. Raises
        DEPENDENCY_UNAVAILABLE if none answers.
        """
        asked = list(self._instances.values())
        await asyncio.gather(*(self._ask(instance) for instance in asked))
        heard = [instance.models for instance in asked if not instance.silent]
        if not heard:
            raise unavailable("models")
        return _merged(heard)

    async def _ask(self, instance: Instance) -> None:
        try:
            with self._held(instance):
                found = await instance.connection.list_models()
        except AppError:
            instance.silent = True
        else:
            instance.silent = False
            instance.models = {model.id: model for model in found}

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Stream a reply; closing the iterator stops the generation."""
        lost: AppError | None = None
        for instance in self._serving(request.model):
            if instance.gone:  # while another one was asked: its connection is closed
                continue
            spoke = False
            try:
                async with aclosing(self._of(instance, request)) as events:
                    async for event in events:
                        spoke = True
                        yield event
            except AppError as error:
                if spoke or error.reason not in ELSEWHERE:
                    raise
                lost = error
            else:
                return
        raise lost or unavailable("models")

    async def _of(
        self, instance: Instance, request: GenerationRequest
    ) -> AsyncGenerator[GenerationEvent, None]:
        """One instance's reply."""
        self._asked += 1
        instance.asked = self._asked
        with self._held(instance):
            async with aclosing(instance.connection.generate(request)) as events:
                async for event in events:
                    yield event

    @contextmanager
    def _held(self, instance: Instance) -> Iterator[None]:
        """Count a call to an instance, which is not let go of while there are any."""
        instance.running += 1
        try:
            yield
        finally:
            instance.running -= 1
            self._let_go(instance)

    def _serving(self, model: str) -> list[Instance]:
        """Who serves a model, the least busy first; those that answer and are ready if any is.

        While nobody is known to, those that have not yet said what they serve: they came just now.
        """
        able = [i for i in self._instances.values() if model in i.models]
        ready = [i for i in able if i.models[model].ready and not i.silent]
        fresh = [i for i in self._instances.values() if not i.models]
        return sorted(ready or able or fresh, key=lambda i: (i.running, i.asked))

    def _let_go(self, instance: Instance) -> None:
        """Close the connection of an instance that left, once nothing runs there."""
        if instance.gone and not instance.running:
            self._background.spawn(instance.connection.close())


def _merged(served: Sequence[Mapping[str, Model]]) -> list[Model]:
    """Every model once, in the order in which instances prefer them; a ready entry wins."""
    found: dict[str, Model] = {}
    for models in served:
        for model in models.values():
            if model.id not in found or (model.ready and not found[model.id].ready):
                found[model.id] = model
    # What quotes stays the last resort, whoever named it first.
    return sorted(found.values(), key=lambda model: not model.generative)
