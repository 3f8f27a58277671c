"""Why replies are as they are: what a turn notes of itself, and what can be asked of it later.

An explanation is stored with its reply, so that any replica has it for as long as the reply is
kept. The last ones are also kept here: those of private turns, and of replies that memory missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.routing.domain import (
    Decision,
    Explanation,
    FinishReason,
    Recollection,
    StoredTurn,
    Timings,
    Usage,
)
from services.routing.generation import Reply
from services.routing.ports import MemoryPort
from services.routing.streams import TurnKey
from services.runtime.cache import BoundedCache
from services.runtime.clock import Clock
from services.runtime.errors import AppError, not_found

MAX_EXPLANATIONS = 4096
KEPT_S = 3600.0


@dataclass
class Account:
    """What one turn notes while it runs; times in seconds from the start of its call."""

    trace_id: str
    decision: Decision
    shown: tuple[Recollection, ...] = ()
    started_s: float | None = None
    prepared_s: float | None = None
    generated_s: float | None = None

    def used_memory_ids(self, reply: Reply) -> tuple[str, ...]:
        """Return the memories that a reply rests on: those quoted, or all that a model saw."""
        if reply.target is None or reply.target.model.generative:
            return tuple(hit.id for hit in self.shown)
        return reply.finish.quoted_ids if reply.finish else ()

    def confidence(self, reply: Reply) -> float | None:
        """Return how sure an extractive reply is; None for a language model's."""
        if reply.target is None or reply.target.model.generative or reply.finish is None:
            return None
        return reply.finish.confidence

    def explain(
        self, reply: Reply, degraded: Sequence[str], finish: FinishReason | None = None
    ) -> Explanation:
        """Return why `reply` is as it is; `finish` stands for an end that it does not know of."""
        transcript = reply.transcript
        return Explanation(
            decision=self.decision,
            attempts=tuple(reply.attempts),
            degraded=tuple(degraded),
            trace_id=self.trace_id,
            memories=tuple(_bare(hit) for hit in self.shown),
            used_memory_ids=self.used_memory_ids(reply),
            finish_reason=finish or reply.reason,
            usage=reply.finish.usage if reply.finish else Usage(),
            timings=Timings(
                self.started_s, self.prepared_s, transcript.first_text_s, self.generated_s
            ),
            confidence=self.confidence(reply),
        )


def _bare(hit: Recollection) -> Recollection:
    """Return a memory without its text, which may be forgotten before anybody asks."""
    return replace(hit, text="", previous_text="", next_text="")


class Explanations:
    """Answers `Explain`; keeps the newest explanations by (tenant, user, request_id)."""

    def __init__(self, memory: MemoryPort, clock: Clock) -> None:
        self._memory = memory
        self._kept: BoundedCache[TurnKey, Explanation] = BoundedCache(
            max_items=MAX_EXPLANATIONS, ttl_s=KEPT_S, clock=clock
        )

    def put(self, key: TurnKey, explanation: Explanation) -> None:
        """Keep the explanation of a turn."""
        self._kept.put(key, explanation)

    async def of_message(self, message_id: str) -> StoredTurn:
        """Return the turn that a message belongs to, with the memories' texts.

        Raises NOT_FOUND for a message of no turn, or somebody else's.
        """
        return await self._with_texts(await self._memory.turn(message_id=message_id))

    async def of_request(self, key: TurnKey) -> StoredTurn:
        """Return the turn of a request; what was not stored only if it ran here not long ago.

        Raises NOT_FOUND.
        """
        kept = self._kept.get(key)
        try:
            turn = await self._memory.turn(request_id=key[-1])
        except AppError:
            if kept is None:
                raise
            turn = StoredTurn(key[-1], "")
        if turn.explanation is None and kept is None and not turn.reply_id:
            raise not_found("explanation")
        return await self._with_texts(replace(turn, explanation=turn.explanation or kept))

    async def _with_texts(self, turn: StoredTurn) -> StoredTurn:
        """Return the turn with the texts of its memories, as far as they can be had now."""
        why = turn.explanation
        if why is None or not why.memories:
            return turn
        try:
            texts = await self._memory.texts([hit.id for hit in why.memories])
        except AppError:
            return turn
        memories = [replace(hit, text=texts.get(hit.id, "")) for hit in why.memories]
        return replace(turn, explanation=replace(why, memories=memories))
