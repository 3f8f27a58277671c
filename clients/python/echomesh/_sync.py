"""The synchronous face: the same client on an event loop of its own in a thread.

So it works in a plain script, in any thread, and where a loop runs already (a notebook).
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent import futures
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from echomesh._client import Client
from echomesh._errors import closed

_T = TypeVar("_T")
# How long work that was cancelled gets to unwind: the mesh is told, which needs no answer.
_UNWIND_S = 2.0


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="echomesh-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end and return the result; a Ctrl-C here cancels it there."""
        if self.stopped:
            work.close()
            raise RuntimeError("the client is closed")
        ended = threading.Event()

        async def whole() -> _T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return future.result()
        except futures.CancelledError:
            raise closed() from None
        except BaseException:
            future.cancel()
            # Until then an iterator that it pulled from is still running and cannot be closed.
            ended.wait(_UNWIND_S)
            raise

    def iterate(self, items: AsyncIterator[_T]) -> Iterator[_T]:
        """Pull items one by one; leaving early closes the source."""
        iterator = aiter(items)

        async def pull() -> tuple[bool, _T | None]:
            try:
                return True, await anext(iterator)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, item = self.run(pull())
                if not more:
                    return
                yield item  # type: ignore[misc] # an item is there whenever `more` is true
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None and not self.stopped:
                self.run(close())

    def stop(self) -> None:
        """End the thread, and what other threads still wait for."""
        self.stopped = True
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_others() -> None:
    """Cancel whatever else this loop is at, and let it end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


_P = ParamSpec("_P")


def _awaited(
    method: Callable[Concatenate[Client, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[SyncClient, _P], _T]:
    """A method of `Client` that waits: the same, with its result."""

    @functools.wraps(method)
    def call(client: SyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return client._loop.run(method(client._client, *args, **kwargs))

    return call


def _iterated(
    method: Callable[Concatenate[Client, _P], AsyncIterator[_T]],
) -> Callable[Concatenate[SyncClient, _P], Iterator[_T]]:
    """A method of `Client` that yields: the same, as an ordinary iterator."""

    @functools.wraps(method)
    def call(client: SyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
        return client._loop.iterate(method(client._client, *args, **kwargs))

    return call


class SyncClient:
    """`Client` without `await`; see there for arguments and errors."""

    def __init__(self, address: str = "127.0.0.1:7400", *, api_key: str, **options: Any) -> None:
        self._loop = _Loop()
        self._owns_loop = True

        async def make() -> Client:
            return Client(address, api_key=api_key, **options)

        self._client = self._loop.run(make())

    def as_user(self, external_user_id: str) -> SyncClient:
        """The same mesh as one of the application's end users. Closing it closes nothing."""
        other = object.__new__(SyncClient)
        other._loop = self._loop
        other._owns_loop = False

        async def make() -> Client:
            return self._client.as_user(external_user_id)

        other._client = self._loop.run(make())
        return other

    def close(self) -> None:
        """Close the connections and end the thread; a second time does nothing."""
        if not self._owns_loop or self._loop.stopped:
            return
        try:
            self._loop.run(self._client.close())
        finally:
            self._loop.stop()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    chat = _iterated(Client.chat)
    reply = _awaited(Client.reply)
    explain = _awaited(Client.explain)
    remember = _awaited(Client.remember)
    recall = _awaited(Client.recall)
    correct = _awaited(Client.correct)
    forget = _awaited(Client.forget)
    memories = _iterated(Client.memories)
    index_status = _awaited(Client.index_status)
    import_messages = _awaited(Client.import_messages)
    conversations = _iterated(Client.conversations)
    messages = _iterated(Client.messages)
    delete_conversation = _awaited(Client.delete_conversation)
    endpoints = _awaited(Client.endpoints)
    audit_entries = _iterated(Client.audit_entries)
    audit_anchor = _awaited(Client.audit_anchor)
