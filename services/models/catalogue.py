"""All models of all backends, and which of them serves a request."""

from __future__ import annotations

from collections.abc import Sequence

from services.models.domain import Backend, Generation, ModelCard, State, TextEmbedder, TokenCounter
from services.models.failures import lacks
from services.runtime.errors import AppError, Reason, not_found

# A model that is away is looked for again within this time.
_AWAY_RETRY_S = 2.0


class Catalogue:
    """The models that can be named; backends in order of preference.

    Args:
        backends: the first with a ready model that can serves a request that names none.

    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)

    def models(self) -> list[ModelCard]:
        """Returns every model of every backend, in order of preference."""
        return [card for _, card in self._entries()]

    def choose(self, request: Generation) -> tuple[Backend, ModelCard]:
        """Returns who serves the request.

        Raises:
            AppError: NOT_FOUND, MODEL_UNAVAILABLE or MODEL_LACKS_ABILITY.

        """
        found = self._named(request.model) if request.model else self._first_able(request)
        _, card = found
        if card.state is not State.READY:
            raise _away(card.id)
        if missing := _missing(card, request):
            raise lacks(card.id, missing)
        return found

    def counter(self, model: str) -> TokenCounter | None:
        """Returns who counts a model's tokens (the first one's if none is named), if anyone can.

        Raises:
            AppError: NOT_FOUND.

        """
        backend, card = self._named(model) if model else self._entries()[0]
        ready = card.state is State.READY
        return backend if ready and isinstance(backend, TokenCounter) else None

    def embedder(self, model: str) -> TextEmbedder:
        """Returns who makes vectors with a model.

        Raises:
            AppError: NOT_FOUND, MODEL_UNAVAILABLE or MODEL_LACKS_ABILITY.

        """
        backend, card = self._named(model)
        if card.state is not State.READY:
            raise _away(card.id)
        if not card.embeds or not isinstance(backend, TextEmbedder):
            raise lacks(card.id, "embed")
        return backend

    def _entries(self) -> list[tuple[Backend, ModelCard]]:
        return [(backend, card) for backend in self._backends for card in backend.models()]

    def _named(self, model: str) -> tuple[Backend, ModelCard]:
        entries = [entry for entry in self._entries() if entry[1].id == model]
        if not entries:
            raise not_found("model")
        return entries[0]

    def _first_able(self, request: Generation) -> tuple[Backend, ModelCard]:
        ready = [entry for entry in self._entries() if entry[1].state is State.READY]
        able = [entry for entry in ready if not _missing(entry[1], request)]
        if able:
            return able[0]
        if ready:
            raise lacks(ready[0][1].id, _missing(ready[0][1], request))
        raise _away("any model")


def _missing(card: ModelCard, request: Generation) -> str:
    if card.embeds:
        return "text"
    if request.tools and not card.tools:
        return "tools"
    if request.lora_adapter and request.lora_adapter not in card.lora_adapters:
        return "lora_adapter"
    if request.logprobs and not card.logprobs:
        return "logprobs"
    return "response_format" if request.response_schema and not card.json_schema else ""


def _away(model: str) -> AppError:
    return AppError(
        Reason.MODEL_UNAVAILABLE,
        f"{model} is away",
        metadata={"model": model},
        retry_after_s=_AWAY_RETRY_S,
    )
