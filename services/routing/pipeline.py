"""One message, end to end: remember, recall, choose, answer, store. Free of any transport."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.routing.budget import FIRST_TEXT_S, Budget
from services.routing.catalog import Catalog
from services.routing.classify import classify, default_tier, recalls_by_keyword
from services.routing.domain import (
    Accepted,
    BegunTurn,
    Decision,
    Final,
    FinishReason,
    GenerationRequest,
    MemoriesUsed,
    PastMessage,
    Progress,
    Recalled,
    Recollection,
    Restart,
    Stage,
    StoreResult,
    TextDelta,
    Tier,
    TurnRequest,
    Usage,
)
from services.routing.explain import Account, Explanations
from services.routing.fallback import Target, choose_targets, choose_tier
from services.routing.generation import Generation, Reply
from services.routing.persona import Persona, pick_persona
from services.routing.ports import MemoryPort, ModelsPort
from services.routing.prompting import Context, as_past, prepare
from services.routing.remembering import RECENT_MESSAGES, STORE_S, MemoryLeg
from services.routing.streams import Background, Emit, TurnHandle, TurnKey, TurnTable
from services.routing.targets import TargetBook
from services.routing.toolcalls import unpack
from services.routing.turn import check_supported, rerun_reason, usable_hits
from services.runtime.adaptive import AdaptiveGate
from services.runtime.clock import Clock
from services.runtime.errors import LATE, AppError
from services.runtime.limits import Gate

# Memory answers in time within this: half of what it may take on the instant tier. Later means
# that more turns store and recall at once than it can serve.
MEMORY_IN_TIME_S = 0.15
# How long a turn holds its place among those that store and recall, so that a memory that froze
# does not hold up everybody; and how long it waits before it says what for.
PLACE_S = 0.25
# How long the end of a reply waits for a begin that is late, and for the commit.
COMMIT_WAIT_S = 1.0
# Kept free between the commit's wait and the client's deadline, for the final frame to arrive.
FINAL_MARGIN_S = 0.03


@dataclass(frozen=True)
class Parts:
    """What all turns of a process share."""

    memory: MemoryPort
    models: ModelsPort
    catalog: Catalog
    personas: Mapping[str, Persona]
    book: TargetBook
    table: TurnTable
    explanations: Explanations
    background: Background
    gate: Gate
    max_turns: int
    starting: AdaptiveGate
    clock: Clock


class Turn:
    """One turn: `run` emits its frames. Used once."""

    def __init__(
        self,
        parts: Parts,
        turn: TurnRequest,
        key: TurnKey,
        *,
        remaining_s: float | None,
        trace_id: str,
    ) -> None:
        check_supported(turn)
        self._parts = parts
        self._turn = turn
        self._key = key
        self._persona = pick_persona(parts.personas, turn.persona)
        self._query_type = classify(turn.text)
        tier = turn.tier or default_tier(self._query_type)
        self._budget = Budget.start(parts.clock, tier, remaining_s)
        self._leg = MemoryLeg(parts.memory, turn, parts.background, speaker=self._persona.name)
        self._account = Account(trace_id, Decision(tier, self._query_type, "", ""))
        self._accepted = False

    def require_place(self) -> None:
        """Raise OVERLOADED if there is no place, or none soon: before anything is done for it.

        A wait as long as the tier's own time is worth it; a longer one is not.
        """
        self._parts.gate.require_room()
        self._parts.starting.require(FIRST_TEXT_S[self._budget.tier])

    async def run(self, emit: Emit, handle: TurnHandle) -> None:
        """Run the turn; raises AppError if it cannot be answered."""
        gate, starting = self._parts.gate, self._parts.starting
        # At once, unless it ran here before: then memory is asked first whether it is a replay.
        if not self._parts.table.seen(self._key):
            await self._accept(emit, replayed=False)
        if gate.running >= self._parts.max_turns or starting.expected_wait_s:
            await self._accept(emit, replayed=False)
            await emit(Progress(Stage.QUEUED, position=gate.waiting + starting.waiting))
        async with gate:
            await self._run(emit, handle)

    async def _run(self, emit: Emit, handle: TurnHandle) -> None:
        async with self._parts.starting.place(MEMORY_IN_TIME_S):
            self._budget = self._budget.running()
            self._account.started_s = self._budget.elapsed_s()
            self._start_memory()
            settled = await self._leg.settled(PLACE_S)
        if await self._finished(emit, await self._leg.begun(0.0)):
            return
        await self._accept(emit, replayed=False)
        if not settled:
            await emit(Progress(Stage.RECALLING))
        targets, away = await self._targets()
        begun = await self._leg.begun(self._memory_wait_s(targets))
        if await self._finished(emit, begun):
            return
        if away is not None:
            raise away
        await self._take_over(emit, handle, begun)
        context = await self._context(begun, targets)
        await self._answer(emit, begun, context, targets)

    def _start_memory(self) -> None:
        self._leg.start(
            begin_s=self._budget.remaining_s(),
            recall_s=max(self._budget.memory_s(generative=False), 0.05),
            keyword_only=recalls_by_keyword(self._query_type),
            recent_limit=RECENT_MESSAGES if self._reads_recent() else 0,
        )

    def _reads_recent(self) -> bool:
        """Whether a model may read what was said before, and the client does not bring it."""
        return self._turn.history is None and self._parts.catalog.may_generate

    def _memory_wait_s(self, targets: Sequence[Target]) -> float:
        generative = any(target.model.generative for target in targets)
        return self._budget.memory_s(generative=generative)

    async def _accept(self, emit: Emit, *, replayed: bool) -> None:
        """Send the accepted frame; a second one only to say that the turn is a replay after all."""
        if self._accepted and not replayed:
            return
        self._accepted = True
        turn = self._turn
        await emit(
            Accepted(
                turn.request_id,
                turn.conversation_id,
                self._account.trace_id,
                replayed,
                self._persona.name,
            )
        )

    async def _targets(self) -> tuple[list[Target], AppError | None]:
        """Return the targets and settle the tier; or why there is none, to be told if no replay."""
        now, book = self._parts.clock.monotonic(), self._parts.book
        try:
            models = await self._parts.catalog.models()
            targets = choose_targets(
                self._turn,
                self._query_type,
                models,
                lambda model: book.of(model).breaker.would_allow(now),
            )
        except AppError as error:
            return [], error
        first = targets[0].model
        p95_s = book.of(first.id).first_text_p95_s if first.generative else None
        self._budget = self._budget.with_tier(choose_tier(self._turn, self._query_type, p95_s))
        return targets, None

    async def _take_over(self, emit: Emit, handle: TurnHandle, begun: BegunTurn | None) -> None:
        """Become the runner: stop an older one here, void what the client may hold of it."""
        table = self._parts.table
        if begun is None:
            self._leg.when_begun(lambda late: table.claim(self._key, handle, late.epoch))
            return
        table.claim(self._key, handle, begun.epoch)
        await asyncio.sleep(0)  # ends here if a newer one runs already
        reason = rerun_reason(begun)
        if reason:
            await emit(Restart(reason))

    async def _context(self, begun: BegunTurn | None, targets: Sequence[Target]) -> Context:
        wait_s = self._memory_wait_s(targets)
        recent: Sequence[PastMessage]
        if self._turn.store:
            recent = begun.recent if begun else ()
            if begun is None:
                self._leg.note("memory", LATE)
        else:
            recent = await self._leg.recent(wait_s)
        if self._turn.history is not None:
            recent = as_past(self._turn.history)
        recalled: Recalled = await self._leg.recalled(self._memory_wait_s(targets))
        message = begun.message if begun else None
        hits = usable_hits(recalled.hits, self._turn, message)
        today = self._parts.clock.now()
        tier = self._budget.tier
        return Context(self._turn, self._persona, tier, today, hits, recent)

    async def _answer(
        self,
        emit: Emit,
        begun: BegunTurn | None,
        context: Context,
        targets: Sequence[Target],
    ) -> None:
        """Generate and store; a cancelled turn still stores the text so far."""

        async def prepared(target: Target) -> GenerationRequest:
            ready = prepare(context, target.model)
            await self._announce(emit, target, ready.shown, context.tier)
            return ready.request

        parts = self._parts
        generation = Generation(parts.models, parts.book, self._budget, emit, prepared)
        self._account.prepared_s = self._budget.elapsed_s()
        try:
            reply = await generation.run(targets)
            self._account.generated_s = self._budget.elapsed_s()
            await self._conclude(emit, begun, reply, targets)
        except asyncio.CancelledError:
            parts.background.spawn(self._store_partial(begun, generation.reply))
            raise
        finally:
            why = self._account.explain(generation.reply, tuple(self._leg.degraded))
            parts.explanations.put(self._key, why)

    async def _announce(
        self, emit: Emit, target: Target, shown: tuple[Recollection, ...], tier: Tier
    ) -> None:
        decision = Decision(tier, self._query_type, target.model.id, target.reason)
        self._account.shown, self._account.decision = shown, decision
        await emit(decision)
        if shown:
            await emit(MemoriesUsed(shown))
        if target.model.generative:
            await emit(Progress(Stage.GENERATING))

    async def _store_partial(self, begun: BegunTurn | None, reply: Reply) -> None:
        """Store what a cancelled turn had; runs on its own for at most `STORE_S`."""
        begun = begun or await self._leg.begun_late(STORE_S)
        if not reply.transcript.text or begun is None or begun.reply is not None:
            return
        finish = reply.reason or FinishReason.CANCELLED
        why = self._account.explain(reply, tuple(self._leg.degraded), finish)
        await self._leg.complete(begun, reply.transcript, finish, why, timeout_s=STORE_S)

    async def _conclude(
        self,
        emit: Emit,
        begun: BegunTurn | None,
        reply: Reply,
        targets: Sequence[Target],
    ) -> None:
        """Commit the reply and send the final frame."""
        begun = begun or await self._leg.begun_late(self._commit_wait_s())
        if begun is not None and begun.reply is not None:
            await emit(Restart("the turn was finished before"))
            await self._replay(emit, begun, begun.reply)
            return
        reply_id, stored = "", StoreResult.NOT_STORED
        if reply.target is not None and reply.target.model.generative < _wanted(targets):
            self._leg.note("models", reply.last_error)
        if begun is not None:
            why = self._account.explain(reply, tuple(self._leg.degraded))
            reply_id, stored = await self._leg.complete(
                begun, reply.transcript, reply.reason, why, timeout_s=self._commit_wait_s()
            )
        await emit(self._final(begun, reply, reply_id, stored))

    def _commit_wait_s(self) -> float:
        left = self._budget.final_remaining_s() - FINAL_MARGIN_S
        return max(0.0, min(COMMIT_WAIT_S, left))

    def _final(
        self, begun: BegunTurn | None, reply: Reply, reply_id: str, stored: StoreResult
    ) -> Final:
        transcript = reply.transcript
        return Final(
            message_id=begun.message.id if begun else "",
            reply_id=reply_id,
            finish_reason=reply.reason,
            message_stored=self._leg.message_stored,
            reply_stored=stored,
            degraded=self._leg.degraded,
            usage=reply.finish.usage if reply.finish else Usage(),
            tier=self._budget.tier,
            model=transcript.model,
            first_text_s=transcript.first_text_s,
            total_s=self._budget.elapsed_s(),
            trace_id=self._account.trace_id,
            used_memory_ids=self._account.used_memory_ids(reply),
            confidence=self._account.confidence(reply),
        )

    async def _finished(self, emit: Emit, begun: BegunTurn | None) -> bool:
        """Replay a turn that was finished before; return whether it was."""
        if begun is None or begun.reply is None:
            return False
        await self._replay(emit, begun, begun.reply)
        return True

    async def _replay(self, emit: Emit, begun: BegunTurn, reply: PastMessage) -> None:
        """Send the stored reply of a finished turn."""
        await self._accept(emit, replayed=True)
        first_text_s = self._budget.elapsed_s()
        if reply.text:
            await emit(TextDelta(reply.text))
        if reply.finish_reason is FinishReason.TOOL_CALLS:
            for call in unpack(reply.metadata):
                await emit(call)
        await emit(
            Final(
                message_id=begun.message.id,
                reply_id=reply.id,
                finish_reason=reply.finish_reason,
                message_stored=StoreResult.STORED,
                reply_stored=StoreResult.STORED,
                degraded={},
                usage=Usage(),
                tier=self._budget.tier,
                model=reply.model,
                first_text_s=first_text_s,
                total_s=self._budget.elapsed_s(),
                trace_id=self._account.trace_id,
                used_memory_ids=(),
            )
        )


def _wanted(targets: Sequence[Target]) -> bool:
    """Return whether the first choice was a language model."""
    return targets[0].model.generative
