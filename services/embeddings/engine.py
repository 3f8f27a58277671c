"""From texts to vectors across requests: cache, one computation per text, batches, threads.

A text is looked up in the cache, then joined to the same text in flight, else queued. One task
cuts queued texts into tokens, one task per inference thread takes batches. All bookkeeping is done
on the event loop; only the encoder's calls run in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from services.embeddings.backlog import Backlog, QueueLimits, Work
from services.embeddings.batching import BatchLimits, Priority
from services.embeddings.vectors import Embedding
from services.runtime.cache import BoundedCache
from services.runtime.errors import AppError, Reason

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from services.embeddings.metrics import EngineMetrics
    from services.embeddings.vectors import Encoder, ModelInfo
    from services.runtime.clock import Clock

TOKENIZE_BATCH = 64  # texts per trip to the tokenizer's thread: about 5 ms of work
FIRST_GUESS_S = 0.01  # seconds per text before the first batch was timed
SMOOTHING = 0.1  # share of the newest batch in the running estimate

G = TypeVar("G")
R = TypeVar("R")
Step = Callable[[list[Work]], Awaitable[None]]


@dataclass(frozen=True)
class EngineLimits:
    """The engine's bounds: inference threads, cache bytes, queue and batches."""

    threads: int = 2
    cache_bytes: int = 64 << 20
    queue: QueueLimits = field(default_factory=QueueLimits)
    batches: BatchLimits = field(default_factory=BatchLimits)


class Engine:
    """Embeds texts for many requests at once; use from one event loop, between start and close."""

    def __init__(
        self, encoder: Encoder, limits: EngineLimits, clock: Clock, metrics: EngineMetrics
    ) -> None:
        self._encoder = encoder
        self._clock = clock
        self._metrics = metrics
        self._threads = limits.threads
        self._cache: BoundedCache[bytes, Embedding] = BoundedCache(
            max_bytes=limits.cache_bytes, size_of=lambda one: one.size_bytes, clock=clock
        )
        self._backlog = Backlog(limits.queue, limits.batches)
        self._in_flight: dict[bytes, Work] = {}
        self._fresh, self._ready = asyncio.Event(), asyncio.Event()
        self._inference = ThreadPoolExecutor(limits.threads, thread_name_prefix="inference")
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._tasks: list[asyncio.Task[None]] = []
        self._seconds_per_text = FIRST_GUESS_S
        self._closed = False

    @property
    def info(self) -> ModelInfo:
        """The model in force."""
        return self._encoder.info

    @property
    def ready(self) -> int:
        """How many texts wait for nothing but an inference thread."""
        return self._backlog.ready

    def start(self) -> None:
        """Begin to work; call once, on the event loop."""
        loops: list[Callable[[], Coroutine[None, None, None]]] = [self._tokenize_forever]
        loops += [self._infer_forever] * self._threads
        self._tasks = [asyncio.create_task(loop(), name=loop.__name__) for loop in loops]

    async def close(self) -> None:
        """Stop; what is unfinished fails with AppError DRAINING."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(list(self._in_flight.values()), self._draining())
        for pool in (self._inference, self._tokenizing):
            pool.shutdown(wait=False, cancel_futures=True)

    async def embed(
        self, texts: Sequence[str], priority: Priority, timeout_s: float
    ) -> list[Embedding]:
        """Embed texts, in order.

        Args:
            texts: any number; identical ones are computed once.
            priority: whether somebody waits for the answer.
            timeout_s: what still waits in the queue after so many seconds is dropped.

        Raises:
            AppError: OVERLOADED (queue full, nothing was queued), DEADLINE_EXCEEDED or DRAINING.

        """
        if self._closed:
            raise self._draining()
        keys = [self._key(text) for text in texts]
        distinct = dict(zip(keys, texts, strict=True))
        found = {key: hit for key in distinct if (hit := self._cache.get(key)) is not None}
        missing = {key: text for key, text in distinct.items() if key not in found}
        works = self._join_or_queue(missing, priority, self._clock.monotonic() + timeout_s)
        fresh = sum(not work.waiters for work in works)
        self._metrics.looked_up(hits=len(found), joined=len(works) - fresh, misses=fresh)
        await self._wait_for(works)
        found.update({work.key: work.future.result() for work in works})
        return [found[key] for key in keys]

    def _key(self, text: str) -> bytes:
        """Content and model version, nothing of who asks: the same text has the same vectors."""
        return hashlib.sha256(f"{self.info.version}\n{text}".encode()).digest()

    def _join_or_queue(
        self, texts: dict[bytes, str], priority: Priority, deadline: float
    ) -> list[Work]:
        joined = [self._in_flight[key] for key in texts if key in self._in_flight]
        loop = asyncio.get_running_loop()
        fresh = [
            Work(key, text, loop.create_future(), priority, deadline)
            for key, text in texts.items()
            if key not in self._in_flight
        ]
        try:
            self._backlog.admit(fresh, priority, self._seconds_per_text / self._threads)
        except AppError:
            self._metrics.refused(priority, len(fresh))
            raise
        for work in joined:
            work.deadline = max(work.deadline, deadline)
            if priority is Priority.INTERACTIVE:
                self._backlog.promote(work)
        self._in_flight.update({work.key: work for work in fresh})
        self._note_queue()
        if fresh:
            self._fresh.set()
        return [*joined, *fresh]

    async def _wait_for(self, works: Sequence[Work]) -> None:
        """Wait for all; a caller who leaves takes along only what nobody else waits for."""
        if not works:
            return
        for work in works:
            work.waiters += 1
        try:
            futures = [work.future for work in works]
            await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        finally:
            for work in works:
                work.waiters -= 1
                self._abandon_if_unwanted(work)

    def _abandon_if_unwanted(self, work: Work) -> None:
        if not work.waiters and work.wanted and self._backlog.discard(work):
            del self._in_flight[work.key]
            work.future.cancel()
            self._metrics.dropped("cancelled")
            self._note_queue()

    async def _tokenize_forever(self) -> None:
        while True:
            await _signalled(self._fresh, lambda: self._backlog.has_fresh)
            works = self._drop_expired(self._backlog.take_fresh(TOKENIZE_BATCH))
            await self._each_alone_on_error(works, self._tokenize)
            self._ready.set()

    async def _infer_forever(self) -> None:
        while True:
            await _signalled(self._ready, lambda: self._backlog.ready > 0)
            works = self._drop_expired(self._backlog.take_batch())
            self._note_queue()
            await self._each_alone_on_error(works, self._infer)

    async def _each_alone_on_error(self, works: list[Work], step: Step) -> None:
        """Run a step; if it fails, run it text by text: one's bad text harms nobody else."""
        if not works:
            return
        try:
            await step(works)
        except Exception as error:  # whatever it is, those who wait must hear of it
            if len(works) == 1:
                self._fail(works, error)
                return
            for work in works:
                await self._each_alone_on_error([work], step)

    async def _tokenize(self, works: list[Work]) -> None:
        texts = [work.text for work in works]
        cut = await _in_thread(self._tokenizing, self._encoder.tokenize, texts)
        for work, tokens in zip(works, cut, strict=True):
            self._backlog.make_ready(work, tokens)

    async def _infer(self, works: list[Work]) -> None:
        tokens = [work.tokens for work in works if work.tokens is not None]
        began = self._clock.monotonic()
        results = await _in_thread(self._inference, self._encoder.encode, tokens)
        seconds = self._clock.monotonic() - began
        for work, result in zip(works, results, strict=True):
            self._cache.put(work.key, result)
            self._in_flight.pop(work.key, None)
            if work.wanted:
                work.future.set_result(result)
        newest = seconds / len(works)
        self._seconds_per_text += SMOOTHING * (newest - self._seconds_per_text)
        self._metrics.batch_done(results, seconds, self._cache.stats().size_bytes)

    def _drop_expired(self, works: Iterable[Work]) -> list[Work]:
        now = self._clock.monotonic()
        kept = []
        for work in works:
            if work.deadline > now:
                kept.append(work)
                continue
            error = AppError(Reason.DEADLINE_EXCEEDED, "the deadline passed in the queue")
            self._fail([work], error)
            self._metrics.dropped("expired")
        return kept

    def _fail(self, works: Iterable[Work], error: Exception) -> None:
        for work in works:
            self._backlog.discard(work)
            if self._in_flight.get(work.key) is work:
                del self._in_flight[work.key]
            if work.wanted:
                work.future.set_exception(error)
                work.future.exception()  # marks it as seen: its waiters may all have left

    def _note_queue(self) -> None:
        for priority in Priority:
            self._metrics.queued(priority, self._backlog.texts(priority))

    def _draining(self) -> AppError:
        return AppError(Reason.DRAINING, "this replica is stopping", retry_after_s=1.0)


async def _signalled(event: asyncio.Event, ready: Callable[[], bool]) -> None:
    """Wait until `ready`; `event` says that it may have become so."""
    while not ready():
        event.clear()
        await event.wait()


async def _in_thread(pool: ThreadPoolExecutor, call: Callable[[G], R], given: G) -> R:
    """Call in a thread; a panic of native code becomes an ordinary error."""

    def guarded() -> R:
        try:
            return call(given)
        except Exception:
            raise
        except BaseException as panic:
            raise RuntimeError(f"the encoder broke down: {panic}") from panic

    return await asyncio.get_running_loop().run_in_executor(pool, guarded)
