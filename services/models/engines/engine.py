"""What every engine offers its worker. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.models.domain import Event, Generation

Step = Callable[[], None]
"""Called whenever a request goes on; one that does not for long counts as stuck."""

Report = Callable[[str], None]
"""Called with what is being done while a model is loaded."""


class CannotLoad(Exception):
    """The model can never be served so; the text says why, in words to show."""


@dataclass(frozen=True)
class Abilities:
    """What a loaded model can do; the context length in tokens."""

    context_length: int
    tools: bool
    json_schema: bool


class Engine(Protocol):
    """A loaded model."""

    abilities: Abilities

    def generate(self, request: Generation, step: Step) -> AsyncGenerator[Event, None]:
        """Stream a reply that ends with exactly one Finish; closing the iterator stops it.

        Raises:
            AppError: CONTEXT_TOO_LONG, MODEL_REFUSED or MODEL_BAD_RESPONSE.

        """
        ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text is."""
        ...

    async def close(self) -> None:
        """Let the model go."""
        ...
