"""What routing needs of memory and models, free of transport. Failures are `AppError`s."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from services.routing.domain import (
    BegunTurn,
    Explanation,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Model,
    PastMessage,
    Recalled,
    StoredTurn,
    TurnRequest,
)


class MemoryPort(Protocol):
    """The two writes of a turn, and recall."""

    async def begin(self, turn: TurnRequest, *, recent_limit: int) -> BegunTurn:
        """Store the user's message and become the turn's runner."""
        ...

    async def complete(
        self,
        turn: TurnRequest,
        *,
        epoch: int,
        text: str,
        speaker: str,
        finish_reason: FinishReason,
        model: str,
        metadata: Mapping[str, str],
        explanation: Explanation,
    ) -> str:
        """Store the reply and return its id."""
        ...

    async def turn(self, *, request_id: str = "", message_id: str = "") -> StoredTurn:
        """Return a turn of the calling user by its request or by one of its messages."""
        ...

    async def texts(self, memory_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the texts of memories by id; a forgotten one is left out."""
        ...

    async def recent(self, conversation_id: str, limit: int) -> tuple[PastMessage, ...]:
        """Return the newest messages of a conversation, oldest first; none if there is none."""
        ...

    async def recall(self, turn: TurnRequest, *, limit: int, keyword_only: bool) -> Recalled:
        """Return what is relevant to the turn's text, best first."""
        ...


class ModelsPort(Protocol):
    """The models of the mesh."""

    async def list_models(self) -> Sequence[Model]:
        """Return every model, in order of preference."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Stream a reply; closing the iterator stops the generation."""
        ...
