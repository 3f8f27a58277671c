"""Turns as tasks: a bounded stream of frames between the turn and the call that reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from services.routing.domain import Frame
from services.runtime.cache import BoundedCache
from services.runtime.clock import Clock
from services.runtime.deadline import MAX_DEADLINE_S
from services.runtime.errors import AppError, Reason

Emit = Callable[[Frame], Awaitable[None]]
TurnKey = tuple[str, str, str]

# Frames that may wait for a slow reader before the turn waits too.
STREAM_FRAMES = 64
# Turns whose epoch is kept: far more than end in the time of one call.
KEPT_EPOCHS = 10_000


class FrameStream:
    """A bounded queue of frames with an end; after `abandon` everything put in is dropped."""

    def __init__(self, limit: int = STREAM_FRAMES) -> None:
        self._queue: asyncio.Queue[Frame | BaseException | None] = asyncio.Queue(limit)
        self._abandoned = False

    async def put(self, frame: Frame) -> None:
        """Add a frame; waits while the reader is behind."""
        await self._put(frame)

    async def end(self, error: BaseException | None = None) -> None:
        """Add the end: the reader stops, or raises `error`."""
        await self._put(error)

    def abandon(self) -> None:
        """Drop what waits and what comes: nobody reads any more."""
        self._abandoned = True
        while not self._queue.empty():
            self._queue.get_nowait()

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the frames until the end."""
        while True:
            item = await self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    async def _put(self, item: Frame | BaseException | None) -> None:
        if not self._abandoned:
            await self._queue.put(item)


class Background:
    """Keeps references to tasks that outlive their call, and waits for them at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task of its own."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for what runs, cancel it, and wait for what that starts."""
        await self._settle(timeout_s)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.sleep(0)
        await self._settle(timeout_s)

    async def _settle(self, timeout_s: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


class TurnHandle:
    """One running turn: its task, and the epoch of the newer runner that took over, if any."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.superseded_by = 0

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.task is None or self.task.done()

    def stop(self, epoch: int) -> None:
        """End it for the runner with the higher `epoch`."""
        if not self.ended:
            self.superseded_by = epoch
            self.task.cancel()  # type: ignore[union-attr]


class TurnTable:
    """The turns that run in this process, by (tenant, user, request_id)."""

    def __init__(self, background: Background, clock: Clock) -> None:
        self._background = background
        self._running: dict[TurnKey, TurnHandle] = {}
        # The highest epoch seen of each turn, for runners that learn theirs late.
        self._epochs: BoundedCache[TurnKey, int] = BoundedCache(
            max_items=KEPT_EPOCHS, ttl_s=MAX_DEADLINE_S, clock=clock
        )

    @property
    def running(self) -> int:
        """How many turns have a runner here."""
        return len(self._running)

    def seen(self, key: TurnKey) -> bool:
        """Whether the turn ran here not long ago: the call may be a replay."""
        return self._epochs.get(key) is not None

    def claim(self, key: TurnKey, handle: TurnHandle, epoch: int) -> None:
        """Make `handle` the runner of `key`.

        Of two in this process the one with the lower epoch is stopped, whichever claims later.
        """
        newest = self._epochs.get(key) or 0
        if epoch < newest:
            handle.stop(newest)
            return
        self._epochs.put(key, epoch)
        older = self._running.get(key)
        if older is not None and older is not handle:
            older.stop(epoch)
        if not handle.ended:
            self._running[key] = handle

    async def run(
        self,
        key: TurnKey,
        work: Callable[[Emit, TurnHandle], Awaitable[None]],
        *,
        detach: bool,
    ) -> AsyncGenerator[Frame, None]:
        """Run `work` as a task and yield its frames.

        If the reader goes away the task is cancelled; with `detach` it goes on unread.
        """
        stream, handle = FrameStream(), TurnHandle()
        handle.task = self._background.spawn(self._guard(key, work, stream, handle))
        frames = stream.frames()
        try:
            async for frame in frames:
                yield frame
        finally:
            stream.abandon()
            if not detach:
                handle.task.cancel()

    async def _guard(
        self,
        key: TurnKey,
        work: Callable[[Emit, TurnHandle], Awaitable[None]],
        stream: FrameStream,
        handle: TurnHandle,
    ) -> None:
        try:
            await work(stream.put, handle)
            await stream.end()
        except asyncio.CancelledError:
            if not handle.superseded_by:
                raise
            await stream.end(_superseded(handle.superseded_by))
        except Exception as error:
            await stream.end(error)
        finally:
            if self._running.get(key) is handle:
                del self._running[key]


def _superseded(epoch: int) -> AppError:
    return AppError(
        Reason.TURN_SUPERSEDED,
        "a newer call with this request_id runs the turn",
        metadata={"epoch": str(epoch)},
    )
