"""Running a turn: the frames of one reply, whatever replica of routing it takes to get them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from echomesh.routing.v1 import chat_pb2
from services.gateway.sessions import Session
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger

# Tries of the same request, which never answers twice (see ChatService), while routing refuses.
_TRIES = 5
# A replica that is gone is started again within seconds; so long is it asked for.
_AWAY_S = 15.0
_BACKOFF_S = 0.1
_BACKOFF_CAP_S = 1.0
# The connection, the replica or what it needs, and not the request, is to blame.
_PASSING = frozenset({Reason.DEPENDENCY_UNAVAILABLE, Reason.DRAINING})
_ROUTING = "routing"
_END_S = 1.0


async def frames_of(
    chat: Any, session: Session, request: chat_pb2.ChatRequest, timeout_s: float
) -> AsyncGenerator[chat_pb2.ChatResponse, None]:
    """The frames of a turn; the last one is `final`. Close it to stop the generation.

    A replica that is lost is tried again with the same request: a `restart` frame then says that
    the text so far is void. `chat` is a ChatService stub. Raises AppError.
    """
    tries = _Tries(timeout_s)
    had_output = False
    while True:
        lost = _broke_off()
        try:
            with session.acting(tries.remaining_s()):
                call = chat.Chat(request)
            async with aclosing(call) as responses:
                frames = aiter(responses)
                async for frame in frames:
                    kind = frame.WhichOneof("frame")
                    had_output = kind in ("text", "tool_call") or (had_output and kind != "restart")
                    if kind == "final":
                        await _let_end(frames)
                        yield frame
                        return
                    yield frame
        except AppError as error:
            lost = error
        await tries.after(lost)
        if had_output:
            had_output = False
            yield chat_pb2.ChatResponse(restart=chat_pb2.Restart(reason="reconnected"))


async def events_of(
    frames: AsyncGenerator[chat_pb2.ChatResponse, None],
    event_of: Callable[[chat_pb2.ChatResponse], bytes],
    failure_of: Callable[[AppError], bytes],
) -> AsyncGenerator[bytes, None]:
    """The events of a turn's frames; what fails after the first of them is an event too.

    A frame may have no event: empty bytes. Raises what fails before the first event.
    """
    began = False
    async with aclosing(frames):
        try:
            async for frame in frames:
                if event := event_of(frame):
                    began = True
                    yield event
        except AppError as error:
            if not began:
                raise
            yield failure_of(error)
        except Exception as error:
            if not began:
                raise
            get_logger().error("stream_failed", exc_info=error)
            yield failure_of(AppError(Reason.INTERNAL, "something went wrong here"))


class _Tries:
    """Decides after each failure whether to try again, and waits before it."""

    def __init__(self, timeout_s: float) -> None:
        self._began = time.monotonic()
        self._ends = self._began + timeout_s
        self._made = 0

    def remaining_s(self) -> float:
        """Seconds left for all tries together."""
        return self._ends - time.monotonic()

    async def after(self, error: AppError) -> None:
        """Return to try again; raise the error to give up."""
        if error.reason not in _PASSING:
            raise error
        wait_s = min(_BACKOFF_CAP_S, _BACKOFF_S * 2**self._made) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._made += 1
        is_away = error.metadata.get("dependency") == _ROUTING
        more = time.monotonic() - self._began < _AWAY_S if is_away else self._made < _TRIES
        if not more or wait_s >= self.remaining_s():
            raise error
        await asyncio.sleep(wait_s)


def _broke_off() -> AppError:
    """What a stream that ends without its final frame comes to."""
    return AppError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "the reply broke off",
        metadata={"dependency": _ROUTING},
        retry_after_s=1.0,
    )


async def _let_end(frames: Any) -> None:
    """Let a stream end by itself after its final frame: cancelled, it would count as that."""
    try:
        async with asyncio.timeout(_END_S):
            async for _ in frames:
                pass
    except (TimeoutError, AppError):
        return  # the reply is whole already
