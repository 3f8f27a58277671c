"""What every engine offers its worker. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from services.models.domain import Event, Generation, Vector
from services.models.failures import lacks

Step = Callable[[], None]
"""Called whenever a request goes on; one that does not for long counts as stuck."""

Report = Callable[[str], None]
"""Called with what is being done while a model is loaded."""

Gone = Callable[[str], None]
"""Called with the reason once an engine can serve no more: its worker ends and is replaced."""


OTLP_VARIABLE = "ECHOMESH_OTLP_ENDPOINT"
"""Environment variable that tells an engine with spans of its own where to send them."""


class CannotLoad(Exception):
    """The model can never be served so; the text says why, in words to show."""


class SleepLevel(IntEnum):
    """What becomes of the weights of a model that sleeps."""

    KEEP_WEIGHTS = 1
    DROP_WEIGHTS = 2


@dataclass(frozen=True)
class Abilities:
    """What a loaded model can do; the context length in tokens; 0 parameters mean unknown."""

    context_length: int
    tools: bool
    json_schema: bool
    lora_adapters: tuple[str, ...] = ()
    logprobs: bool = False
    embeds: bool = False
    sleeps: bool = False
    parameters: int = 0


@dataclass(frozen=True)
class Load:
    """Requests that an engine works on, and those that wait in it."""

    running: int = 0
    waiting: int = 0


class Engine(Protocol):
    """A loaded model. What most engines cannot do is refused here."""

    id: str
    abilities: Abilities

    def generate(self, request: Generation, step: Step) -> AsyncGenerator[Event, None]:
        """Stream a reply that ends with exactly one Finish; closing the iterator stops it.

        Raises:
            AppError: CONTEXT_TOO_LONG, MODEL_REFUSED, MODEL_BAD_RESPONSE, MODEL_LACKS_ABILITY,
                MODEL_UNAVAILABLE or OVERLOADED.

        """
        ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text is."""
        ...

    async def close(self) -> None:
        """Let the model go."""
        ...

    def load(self) -> Load:
        """Return what is being worked on, as far as the engine tells."""
        return Load()

    async def embed(self, texts: Sequence[str], step: Step) -> list[Vector]:
        """Return a vector for each text, cut to what fits; raises what `generate` does."""
        raise lacks(self.id, "embed")

    async def sleep(self, level: SleepLevel) -> None:
        """Give the GPU's memory free; requests are refused until `wake`."""
        raise lacks(self.id, "sleep")

    async def wake(self) -> None:
        """Take the memory again, and make sure that the model answers as before.

        Raises:
            AppError: MODEL_BAD_RESPONSE when it does not.

        """
        raise lacks(self.id, "sleep")
