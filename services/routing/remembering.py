"""The memory side of one turn: store and recall at once, go on without what is late or away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from services.routing.domain import (
    BegunTurn,
    Explanation,
    FinishReason,
    PastMessage,
    Recalled,
    StoreResult,
    TurnRequest,
)
from services.routing.ports import MemoryPort
from services.routing.streams import Background
from services.routing.toolcalls import pack
from services.routing.turn import Transcript
from services.runtime.deadline import deadline_scope
from services.runtime.errors import LATE, AppError, Reason, why_left_out

T = TypeVar("T")

# How many earlier messages of the conversation a prompt may draw on.
RECENT_MESSAGES = 20
# Hits asked for: more than a prompt takes, because diversity and the message itself cost some.
RECALL_HITS = 24
# The write of a turn may outlive its call by this, so that what was said is not lost.
STORE_S = 2.0
# A reply's write goes on for this long behind its final frame: a memory that froze is noticed
# within 2.5 s, and only then another one is asked.
REPLY_WRITE_S = 5.0
# Reasons that mean memory is away, late or full: the reply goes on without it.
AWAY = frozenset(
    {
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.DEADLINE_EXCEEDED,
        Reason.OVERLOADED,
        Reason.DRAINING,
        Reason.STORAGE_FULL,
        Reason.INTERNAL,
    }
)
# Of those, the ones that say that nothing was written.
_SURELY_NOT_STORED = frozenset(
    {
        Reason.OVERLOADED,
        Reason.DRAINING,
        Reason.STORAGE_FULL,
        Reason.NOT_FOUND,  # the conversation was deleted, and the turn with it
    }
)
# Metadata that the transport adds when a request never left this process.
NOT_SENT = "not_sent"


def result_of(error: AppError) -> StoreResult:
    """Return what a failed write left behind, as far as its error tells."""
    if error.reason in _SURELY_NOT_STORED or error.metadata.get(NOT_SENT):
        return StoreResult.NOT_STORED
    return StoreResult.UNKNOWN


class MemoryLeg:
    """Begin, recall and complete for one turn.

    How long the turn waits is said at each wait; what comes later is not lost, only not waited for.
    """

    def __init__(
        self, memory: MemoryPort, turn: TurnRequest, background: Background, *, speaker: str
    ) -> None:
        self._memory = memory
        self._turn = turn
        self._background = background
        self._speaker = speaker
        self._begin: asyncio.Task[BegunTurn] | None = None
        self._recent: asyncio.Task[tuple[PastMessage, ...]] | None = None
        self._recall: asyncio.Task[Recalled] | None = None
        self._degraded: dict[str, str] = {}

    def start(
        self, *, begin_s: float, recall_s: float, keyword_only: bool, recent_limit: int
    ) -> None:
        """Send the first calls, all at once; `begin_s` and `recall_s` are their deadlines.

        `recent_limit` earlier messages of the conversation come along; 0 where nobody reads them.
        """
        turn, memory = self._turn, self._memory
        if turn.store:
            begin = memory.begin(turn, recent_limit=recent_limit)
            self._begin = self._spawn(begin, max(begin_s, STORE_S))
        elif recent_limit:
            recent = memory.recent(turn.conversation_id, recent_limit)
            self._recent = self._spawn(recent, recall_s)
        if turn.recall:
            recall = memory.recall(turn, limit=RECALL_HITS, keyword_only=keyword_only)
            self._recall = self._spawn(recall, recall_s)

    async def settled(self, timeout_s: float) -> bool:
        """Wait for the first calls, at most so long; return whether all of them are answered."""
        calls = {call for call in (self._begin, self._recent, self._recall) if call is not None}
        if not calls:
            return True
        _, pending = await asyncio.wait(calls, timeout=timeout_s)
        return not pending

    async def begun(self, timeout_s: float) -> BegunTurn | None:
        """Return the begun turn, or None if it is private, late or memory is away.

        Raises what the caller must know: REQUEST_ID_REUSED, an unknown parent, no permission.
        """
        return await self._within(self._begin, timeout_s)

    async def recent(self, timeout_s: float) -> tuple[PastMessage, ...]:
        """Return earlier messages of the conversation for a private turn."""
        return await self._within(self._recent, timeout_s) or ()

    async def recalled(self, timeout_s: float) -> Recalled:
        """Return what was recalled, or nothing, noted as degraded, if it is late or away."""
        recalled = await self._within(self._recall, timeout_s)
        if recalled is None:
            if self._recall is not None:
                self.note("memory", LATE)
            return Recalled()
        for name, why in recalled.degraded.items():
            self.note(name, why)
        return recalled

    def note(self, name: str, why: str) -> None:
        """Name a part that was left out, and why; the first reason stays."""
        self._degraded.setdefault(name, why)

    @property
    def degraded(self) -> Mapping[str, str]:
        """Return the parts that were left out with why, in the order they were noted."""
        return dict(self._degraded)

    @property
    def message_stored(self) -> StoreResult:
        """Return what became of the user's message so far."""
        if self._begin is None:
            return StoreResult.NOT_STORED
        if not self._begin.done() or self._begin.cancelled():
            return StoreResult.UNKNOWN
        error = self._begin.exception()
        if error is None:
            return StoreResult.STORED
        return result_of(error) if isinstance(error, AppError) else StoreResult.UNKNOWN

    def when_begun(self, then: Callable[[BegunTurn], None]) -> None:
        """Call `then` when the begin is answered at last, unless the turn was finished before."""

        def answered(task: asyncio.Task[BegunTurn]) -> None:
            if not task.cancelled() and task.exception() is None and task.result().reply is None:
                then(task.result())

        if self._begin is not None:
            self._begin.add_done_callback(answered)

    async def begun_late(self, timeout_s: float) -> BegunTurn | None:
        """Return the begun turn at the end of the reply: a failed begin is tried once more."""
        if self._begin is None:
            return None
        if self._begin.done() and self.message_stored is not StoreResult.STORED:
            begin = self._memory.begin(self._turn, recent_limit=0)
            self._begin = self._spawn(begin, STORE_S)
        return await self._within(self._begin, timeout_s)

    async def complete(
        self,
        begun: BegunTurn,
        transcript: Transcript,
        finish: FinishReason,
        explanation: Explanation,
        *,
        timeout_s: float,
    ) -> tuple[str, StoreResult]:
        """Store the reply; return its id and what is known after `timeout_s` seconds.

        The write goes on by itself for up to `REPLY_WRITE_S`, whoever waits. Raises
        TURN_SUPERSEDED.
        """
        task = self._spawn(
            self._memory.complete(
                self._turn,
                epoch=begun.epoch,
                text=transcript.text,
                speaker=self._speaker,
                finish_reason=finish,
                model=transcript.model,
                metadata=pack(transcript.tool_calls),
                explanation=explanation,
            ),
            REPLY_WRITE_S,
        )
        try:
            reply_id = await _wait(task, timeout_s)
        except AppError as error:
            if error.reason is Reason.TURN_SUPERSEDED:
                raise
            self.note("memory", why_left_out(error))
            return "", result_of(error)
        return (reply_id, StoreResult.STORED) if reply_id else ("", StoreResult.UNKNOWN)

    async def _within(self, task: asyncio.Task[T] | None, timeout_s: float) -> T | None:
        """Return the task's result if it comes in time; None if it is late or memory is away."""
        if task is None:
            return None
        try:
            result = await _wait(task, timeout_s)
        except AppError as error:
            if error.reason not in AWAY:
                raise
            self.note("memory", why_left_out(error))
            return None
        return result

    def _spawn(self, call: Coroutine[Any, Any, T], deadline_s: float) -> asyncio.Task[T]:
        return self._background.spawn(_bounded(call, deadline_s))


async def _bounded(call: Coroutine[Any, Any, T], deadline_s: float) -> T:
    """Run `call` under a deadline of its own, whatever is left of the client's."""
    with deadline_scope(deadline_s, extend=True):
        try:
            async with asyncio.timeout(deadline_s):
                return await call
        except TimeoutError as error:
            raise AppError(Reason.DEADLINE_EXCEEDED, "memory did not answer in time") from error


async def _wait(task: asyncio.Task[T], timeout_s: float) -> T | None:
    """Return the result of `task`, None if it is not done within `timeout_s`; it goes on then."""
    await asyncio.wait({task}, timeout=max(0.0, timeout_s))
    return task.result() if task.done() else None
