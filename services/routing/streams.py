"""Turns as tasks: a bounded stream of frames between the turn and the call that reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from services.routing.domain import Frame
from services.runtime.errors import AppError, Reason

Emit = Callable[[Frame], Awaitable[None]]
TurnKey = tuple[str, str, str]

# Frames that may wait for a slow reader before the turn waits too.
STREAM_FRAMES = 64


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
    """One running turn: its task, its epoch, and whether a newer runner took over."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.epoch = 0
        self.superseded = False


class TurnTable:
    """The turns that run in this process, by (tenant, user, request_id)."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._running: dict[TurnKey, TurnHandle] = {}

    def claim(self, key: TurnKey, handle: TurnHandle, epoch: int) -> None:
        """Make `handle` the runner of `key`; an older runner in this process is stopped."""
        handle.epoch = epoch
        older = self._running.get(key)
        if older is handle or (older is not None and older.epoch > epoch):
            return
        self._running[key] = handle
        if older is not None and older.task is not None:
            older.superseded = True
            older.task.cancel()

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
            if not handle.superseded:
                raise
            await stream.end(_superseded(handle.epoch))
        except Exception as error:
            await stream.end(error)
        finally:
            if self._running.get(key) is handle:
                del self._running[key]


def _superseded(epoch: int) -> AppError:
    return AppError(
        Reason.TURN_SUPERSEDED,
        "a newer call with this request_id runs the turn",
        metadata={"epoch": str(epoch + 1)},
    )
