"""Runs outbox jobs: claims them in batches, keeps hold of them, and waits out what is away.

A dependency that is away uses up no attempts: its jobs go back unharmed and the runner tries
again soon, so that its return is noticed within :data:`AWAY_PAUSE_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context

from services.memory.model import Job
from services.memory.store import JobStore
from services.runtime import metrics, tracing
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger

LEASE_S = 6.0
"""A killed runner's jobs are due again after this long: well within the ten seconds promised."""

HEARTBEAT_S = 2.0
"""A running batch is held on to this often: twice missed is not yet lost."""

POLL_S = 2.0
"""How often to look without being woken: jobs backed off fall due, and a wake-up may be lost."""

GATHER_S = 0.4
"""A wake-up waits so long for more: what a busy second stores is indexed in a few batches instead
of one for each message, and until then recall finds it in the table."""

AWAY_PAUSE_S = 1.0
"""Pause before trying again what was away."""

FAILED_PAUSE_S = 10.0
"""Pause after a defect of ours, such as a schema that is not there."""

BATCH_LIMIT_S = 60.0
"""No batch runs longer; what hangs is handed back."""

AWAY = frozenset(
    {
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.DRAINING,
        Reason.OVERLOADED,
        Reason.DEADLINE_EXCEEDED,
        Reason.STORAGE_FULL,
    }
)
"""Reasons that say nothing about the job itself."""

_JOBS = metrics.counter("echomesh_memory_jobs_total", "Outbox jobs by outcome.", ("outcome",))

_TRACER = trace.get_tracer("echomesh.memory")

Work = Callable[[Sequence[Job]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Jobs claimed at once, batches at once, and attempts before a job is held."""

    batch: int = 64
    concurrent: int = 2
    attempts: int = 8


@contextmanager
def _span_of(jobs: Sequence[Job]) -> Iterator[None]:
    """A trace of its own for a batch, linked to the spans that queued its jobs."""
    with (
        _TRACER.start_as_current_span(
            "process outbox",
            context=Context(),
            kind=trace.SpanKind.CONSUMER,
            attributes={tracing.BATCH_SIZE: len(jobs)},
            links=tracing.links(job.traceparent for job in jobs),
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        tracing.telling_failure(span),
    ):
        yield


class OutboxRunner:
    """Runs ``work`` over claimed jobs until it is cancelled."""

    def __init__(self, store: JobStore, work: Work, limits: OutboxLimits) -> None:
        self._store = store
        self._work = work
        self._limits = limits
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._drained = False

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    async def run(self) -> None:
        """Run jobs, ``concurrent`` batches at a time, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._limits.concurrent):
                group.create_task(self._loop())

    async def _loop(self) -> None:
        while True:
            try:
                await self._run_batch(await self._found())
            except AppError as error:
                get_logger().warning("outbox_waits", reason=error.reason, error=error.message)
                await asyncio.sleep(AWAY_PAUSE_S)
                self._drained = False  # handed back jobs are due now
            except Exception as error:
                get_logger().error("outbox_failed", exc_info=error)
                await asyncio.sleep(FAILED_PAUSE_S)
                self._drained = False

    async def _found(self) -> Sequence[Job]:
        """Wait for due jobs; one loop looks for them while the others work or queue up here."""
        async with self._looking:
            while True:
                if self._drained:
                    await self._woken()
                self._wake.clear()
                jobs = await self._store.claim(self._limits.batch, LEASE_S)
                self._drained = len(jobs) < self._limits.batch
                if jobs:
                    return jobs

    async def _woken(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_S)
            await asyncio.sleep(GATHER_S)

    async def run_once(self) -> int:
        """Claim and run one batch; return how many jobs it had.

        Raises AppError when something is away; the jobs are handed back first.
        """
        jobs = await self._store.claim(self._limits.batch, LEASE_S)
        if jobs:
            await self._run_batch(jobs)
        return len(jobs)

    async def _run_batch(self, jobs: Sequence[Job]) -> None:
        try:
            with _span_of(jobs):
                await self._hold_and_work(jobs)
        except AppError as error:
            if error.reason in AWAY:
                await self._hand_back(jobs)
                raise
            await self._failed(jobs, error)
        except Exception as error:
            await self._failed(jobs, error)
        else:
            await self._store.done(jobs)
            _JOBS.labels("done").inc(len(jobs))

    async def _hold_and_work(self, jobs: Sequence[Job]) -> None:
        heartbeat = asyncio.create_task(self._hold(jobs))
        try:
            with deadline_scope(BATCH_LIMIT_S, extend=True):
                async with asyncio.timeout(BATCH_LIMIT_S):
                    await self._work(jobs)
        except TimeoutError as error:
            raise AppError(Reason.DEADLINE_EXCEEDED, "a batch took too long") from error
        finally:
            heartbeat.cancel()

    async def _hold(self, jobs: Sequence[Job]) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with suppress(AppError):  # the next beat tries again
                await self._store.hold(jobs, LEASE_S)

    async def _hand_back(self, jobs: Sequence[Job]) -> None:
        _JOBS.labels("handed_back").inc(len(jobs))
        with suppress(AppError):  # else the lease runs out
            await self._store.hand_back(jobs)

    async def _failed(self, jobs: Sequence[Job], error: Exception) -> None:
        """Try the jobs of a failed batch one by one, so that one bad row fails alone."""
        if len(jobs) > 1:
            for job in jobs:
                await self._run_batch([job])
            return
        get_logger().error("job_failed", memory_id=str(jobs[0].memory_id), exc_info=error)
        _JOBS.labels("failed").inc()
        await self._store.failed(jobs, self._limits.attempts)
