"""The models of the mesh as last heard: asked for every few seconds, kept while models is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.routing.domain import Model
from services.routing.ports import ModelsPort
from services.routing.streams import Background
from services.runtime.clock import Clock
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, unavailable
from services.runtime.identity import acting_as

# A backend that appears is picked up within this time.
FRESH_S = 2.0
# How long one question may take, and how long a turn waits for the first answer ever.
ASK_S = 1.0


class Catalog:
    """Keeps the list of models; one question at a time, whoever asks."""

    def __init__(self, models: ModelsPort, clock: Clock, background: Background) -> None:
        self._models = models
        self._clock = clock
        self._background = background
        self._known: Sequence[Model] = ()
        self._heard_at: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def models(self) -> Sequence[Model]:
        """Return the models as last heard; a stale list is used at once and refreshed behind.

        Raises DEPENDENCY_UNAVAILABLE with a time to retry if none was ever heard.
        """
        if self._stale() and (self._asking is None or self._asking.done()):
            self._asking = self._background.spawn(self._ask())
        if self._heard_at is None and self._asking is not None:
            await asyncio.wait({self._asking}, timeout=ASK_S)
        if not self._known:
            raise unavailable("models")
        return self._known

    @property
    def may_generate(self) -> bool:
        """Whether some model may write by itself, as far as is known: it would read a prompt."""
        return not self._known or any(model.generative for model in self._known)

    def _stale(self) -> bool:
        return self._heard_at is None or self._clock.monotonic() - self._heard_at >= FRESH_S

    async def _ask(self) -> None:
        """Ask once; a failure leaves the list as it is."""
        try:
            with acting_as(None), deadline_scope(ASK_S, extend=True):
                self._known = await self._models.list_models()
                self._heard_at = self._clock.monotonic()
        except AppError:
            return
