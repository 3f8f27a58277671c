"""One reply out of several targets: first-text and stall limits, failover, rescue after text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.routing.budget import Budget
from services.routing.domain import (
    Attempt,
    Finish,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ToolCall,
)
from services.routing.fallback import Target
from services.routing.ports import ModelsPort
from services.routing.streams import Emit
from services.routing.targets import TargetBook
from services.routing.turn import Transcript
from services.runtime.errors import AppError, Reason

# Pauses before all targets are tried again when the models service itself is away: a restarted
# one is back within a second or two.
ROUND_PAUSES_S = (0.25, 0.75, 1.5)

Prepare = Callable[[Target], Awaitable[GenerationRequest]]


@dataclass
class Reply:
    """How a generation ended: the finish (None if it broke off), its target, and all attempts."""

    transcript: Transcript
    finish: Finish | None = None
    target: Target | None = None
    reason: FinishReason = FinishReason.UNSPECIFIED
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def last_error(self) -> str:
        """Return what the last attempt that failed did so with; `not_tried` if none did."""
        failed = [attempt.error_reason for attempt in self.attempts if attempt.error_reason]
        return failed[-1] if failed else "not_tried"


class Generation:
    """Runs the attempts of one turn within its budget; `prepare` builds a target's request."""

    def __init__(
        self, models: ModelsPort, book: TargetBook, budget: Budget, emit: Emit, prepare: Prepare
    ) -> None:
        self._models = models
        self._book = book
        self._budget = budget
        self._emit = emit
        self._prepare = prepare
        self.reply = Reply(Transcript())

    async def run(self, targets: Sequence[Target]) -> Reply:
        """Stream from the first target that answers; return how it ended.

        Raises the last target's error if no text came at all, DEADLINE_EXCEEDED if time ran out
        before any text.
        """
        try:
            async with asyncio.timeout(self._budget.remaining_s()):
                await self._rounds(targets)
        except TimeoutError:
            self._end_or_raise(_late(), FinishReason.DEADLINE)
        except AppError as error:
            self._end_or_raise(error, FinishReason.ERROR)
        return self.reply

    def _end_or_raise(self, error: AppError, reason: FinishReason) -> None:
        """End with the text there is, or raise `error` if there is none."""
        if not self.reply.transcript.text:
            raise error
        self.reply.reason = reason

    async def _rounds(self, targets: Sequence[Target]) -> None:
        for pause_s in ROUND_PAUSES_S:
            try:
                await self._round(targets)
            except AppError as error:
                if error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
                    raise
            else:
                return
            await asyncio.sleep(pause_s)
        await self._round(targets)

    async def _round(self, targets: Sequence[Target]) -> None:
        """Try each target once, in order; raise the last one's error if none answers."""
        for index, target in enumerate(targets):
            more = index + 1 < len(targets)
            try:
                await self._attempt(target, more_targets=more)
            except AppError:
                if not more:
                    raise
            else:
                return

    async def _attempt(self, target: Target, *, more_targets: bool) -> None:
        model, clock = target.model.id, self._budget.clock
        request = await self._prepare(target)
        self._book.of(model).breaker.start(clock.monotonic())
        started = clock.monotonic()
        try:
            await self._stream(target, request, more_targets=more_targets)
        except AppError as error:
            self._book.failed(model, error.reason, clock.monotonic())
            self._log(model, str(error.reason), started)
            self.reply.transcript.attempt_failed(f"{model} broke off: {error.reason}")
            raise
        self._log(model, "", started)

    def _log(self, model: str, error_reason: str, started: float) -> None:
        elapsed_ms = round((self._budget.clock.monotonic() - started) * 1000)
        self.reply.attempts.append(Attempt(model, error_reason, elapsed_ms))

    async def _stream(
        self, target: Target, request: GenerationRequest, *, more_targets: bool
    ) -> None:
        """Pass one target's events on until it finishes; raises what it fails with."""
        stats = self._book.of(target.model.id)
        limit_s = self._budget.attempt_first_text_s(
            p95_s=stats.first_text_p95_s, more_targets=more_targets
        )
        spoke = False
        clock = self._budget.clock
        since = clock.monotonic()
        async with aclosing(self._models.generate(request)) as events:
            while True:
                event = await self._next(events, limit_s, target.model.id)
                now = clock.monotonic()
                if isinstance(event, Finish):
                    return self._finish(target, event, spoke=spoke)
                if not spoke:
                    spoke = True
                    self._book.answered(target.model.id, now - since)
                else:
                    stats.gaps.append(now - since)
                await self._pass_on(event, target.model.id)
                since = clock.monotonic()
                limit_s = self._budget.stall_s(stats.gap_p95_s)
                if self.reply.transcript.full:
                    full = Finish(FinishReason.LENGTH, target.model.id)
                    return self._finish(target, full, spoke=True)

    async def _next(
        self, events: AsyncIterator[GenerationEvent], limit_s: float, model: str
    ) -> GenerationEvent:
        try:
            async with asyncio.timeout(min(limit_s, self._budget.remaining_s() + 1.0)):
                return await anext(events)
        except TimeoutError as error:
            raise AppError(
                Reason.MODEL_UNAVAILABLE,
                "the model did not answer in time",
                metadata={"model": model},
                retry_after_s=1.0,
            ) from error
        except StopAsyncIteration as error:
            raise _bad_response(model, "the reply was cut off") from error

    async def _pass_on(self, event: str | ToolCall, model: str) -> None:
        for frame in self.reply.transcript.add(event, model, self._budget.elapsed_s()):
            await self._emit(frame)

    def _finish(self, target: Target, finish: Finish, *, spoke: bool) -> None:
        if not spoke:
            raise _bad_response(target.model.id, "the reply was empty")
        self.reply.finish = finish
        self.reply.target = target
        self.reply.reason = finish.reason


def _bad_response(model: str, text: str) -> AppError:
    return AppError(Reason.MODEL_BAD_RESPONSE, text, metadata={"model": model}, retry_after_s=1.0)


def _late() -> AppError:
    return AppError(Reason.DEADLINE_EXCEEDED, "no text came before the deadline")
