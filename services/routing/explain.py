"""Why the last replies came from where they came from: a bounded store in this process."""

from __future__ import annotations

from services.routing.domain import Explanation
from services.routing.streams import TurnKey
from services.runtime.cache import BoundedCache
from services.runtime.clock import Clock
from services.runtime.errors import not_found

MAX_EXPLANATIONS = 4096
KEPT_S = 3600.0


class Explanations:
    """The newest explanations by (tenant, user, request_id)."""

    def __init__(self, clock: Clock) -> None:
        self._cache: BoundedCache[TurnKey, Explanation] = BoundedCache(
            max_items=MAX_EXPLANATIONS, ttl_s=KEPT_S, clock=clock
        )

    def put(self, key: TurnKey, explanation: Explanation) -> None:
        """Keep the explanation of a turn."""
        self._cache.put(key, explanation)

    def get(self, key: TurnKey) -> Explanation:
        """Return a turn's explanation; NOT_FOUND once forgotten, or for somebody else's."""
        explanation = self._cache.get(key)
        if explanation is None:
            raise not_found("explanation")
        return explanation
