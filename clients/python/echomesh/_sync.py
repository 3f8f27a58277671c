"""The synchronous face: the same client on an event loop of its own in a thread.

So it works in a plain script, in any thread, and where a loop runs already (a notebook).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from echomesh import _types
from echomesh._client import Client
from echomesh._frames import Final, Frame

_T = TypeVar("_T")
# How long work that was cancelled gets to unwind: the mesh is told, which needs no answer.
_UNWIND_S = 2.0


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="echomesh-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end and return the result; a Ctrl-C here cancels it there."""
        ended = threading.Event()

        async def whole() -> _T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return future.result()
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
            if close is not None:
                self.run(close())

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncClient:
    """`Client` without `await`; see there for arguments and errors."""

    def __init__(self, address: str = "127.0.0.1:7400", *, api_key: str, **options: Any) -> None:
        self._loop = _Loop()
        self._owns_loop = True

        async def make() -> Client:
            return Client(address, api_key=api_key, **options)

        self._client = self._loop.run(make())

    def as_user(self, external_user_id: str) -> SyncClient:
        """The same mesh as one of the application's end users."""
        other = object.__new__(SyncClient)
        other._loop = self._loop
        other._owns_loop = False

        async def make() -> Client:
            return self._client.as_user(external_user_id)

        other._client = self._loop.run(make())
        return other

    def close(self) -> None:
        """Close the connections and end the thread."""
        try:
            self._loop.run(self._client.close())
        finally:
            if self._owns_loop:
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

    def chat(self, text: str, **options: Any) -> Iterator[Frame]:
        """Yield the frames of a reply."""
        return self._loop.iterate(self._client.chat(text, **options))

    def reply(self, text: str, **options: Any) -> tuple[str, Final]:
        """The whole reply and its final frame."""
        return self._loop.run(self._client.reply(text, **options))

    def remember(self, text: str, **options: Any) -> _types.Memory:
        """Store something about the user."""
        return self._loop.run(self._client.remember(text, **options))

    def recall(self, query: str, **options: Any) -> _types.RecallResult:
        """What is relevant to a query, best first."""
        return self._loop.run(self._client.recall(query, **options))

    def correct(self, memory_id: str, text: str) -> _types.Memory:
        """Replace the text of a memory."""
        return self._loop.run(self._client.correct(memory_id, text))

    def forget(self, memory_id: str) -> None:
        """Erase a memory for good."""
        self._loop.run(self._client.forget(memory_id))

    def memories(self, *, page_size: int = 100) -> Iterator[_types.Memory]:
        """All memories, newest first."""
        return self._loop.iterate(self._client.memories(page_size=page_size))

    def import_messages(
        self, conversation_id: str, messages: Sequence[_types.NewMessage]
    ) -> tuple[int, int]:
        """Store earlier messages; returns (stored, duplicates)."""
        return self._loop.run(self._client.import_messages(conversation_id, messages))

    def conversations(self) -> Iterator[_types.Conversation]:
        """All conversations, newest first."""
        return self._loop.iterate(self._client.conversations())

    def messages(self, conversation_id: str) -> Iterator[_types.Message]:
        """The messages of a conversation in order."""
        return self._loop.iterate(self._client.messages(conversation_id))

    def delete_conversation(self, conversation_id: str) -> int:
        """Delete a conversation with its memories."""
        return self._loop.run(self._client.delete_conversation(conversation_id))
