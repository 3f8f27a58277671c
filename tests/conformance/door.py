"""A replica as an SDK sees one: all services of a mesh at one address, with faults on demand.

    door.fails("Recall", refused(UNAVAILABLE, "DRAINING"), times=2)   # then it works
    door.loses_answer("Remember")                # done, but the caller is not told
    await door.kill(); await door.open()         # connections break; nobody listens; back again
    door.freeze()                                # connections stay, nothing is answered
    door.seen("Remember")                        # what the calls of a method carried

Everything else is handed to the mesh and back as it is, byte for byte.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from echomesh.routing.v1 import chat_pb2

_DETAILS = "grpc-status-details-bin"
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
_HANDED_ON = ("authorization", "traceparent")
_STREAMS = ("Chat",)


@dataclass(frozen=True)
class Refusal:
    """What a call is refused with; without a reason it looks as if the connection broke."""

    code: grpc.StatusCode
    reason: str = ""
    retry_after_s: float | None = None

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        """The details of the error, as a service would give them."""
        if not self.reason:
            return ()
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain="echomesh")
        status = status_pb2.Status(code=self.code.value[0], message="made by the test")
        status.details.add().Pack(info)
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return ((_DETAILS, status.SerializeToString()),)


EXPIRED = Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


@dataclass
class Seen:
    """One call as it arrived."""

    request: bytes
    metadata: dict[str, str]
    time_left_s: float | None
    at: float = field(default_factory=time.monotonic)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class Door:
    """One address in front of a mesh."""

    def __init__(self, upstreams: Mapping[str, str]) -> None:
        """`upstreams` are the addresses of auth, memory and routing."""
        self._channels = {n: grpc.aio.insecure_channel(a) for n, a in upstreams.items()}
        self._server: grpc.aio.Server | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._faults: defaultdict[str, list[Refusal | str]] = defaultdict(list)
        self._rewrites: dict[str, Callable[[bytes], bytes]] = {}
        self._seen: defaultdict[str, list[Seen]] = defaultdict(list)
        self._expired: set[str] = set()
        self.health_checks = 0
        self.port = 0

    @property
    def address(self) -> str:
        """Where SDKs connect to."""
        return f"127.0.0.1:{self.port}"

    # -- what tests do with it ------------------------------------------------------------------

    def seen(self, method: str) -> list[Seen]:
        """The calls of a method so far, oldest first."""
        return self._seen[method]

    def fails(self, method: str, refusal: Refusal, times: int = 1) -> None:
        """Refuse the next calls of a method."""
        self._faults[method] += [refusal] * times

    def expires(self, authorization: str) -> None:
        """Refuse every call that carries this token from now on, as one that has expired."""
        self._expired.add(authorization)

    def loses_answer(self, method: str) -> None:
        """Hand the next call on, and break off in place of its answer."""
        self._faults[method].append("lose")

    def holds(self, method: str) -> None:
        """Leave the next call of a method without an answer; health is well."""
        self._faults[method].append("hold")

    def holds_answer(self, method: str) -> None:
        """Hand the next call on, and never give its answer; health is well."""
        self._faults[method].append("hold answer")

    def loses_end(self, method: str) -> None:
        """Break the next stream of a method off in place of its final frame."""
        self._faults[method].append("cut")

    def rewrites(self, method: str, change: Callable[[bytes], bytes]) -> None:
        """Change every answer of a method from now on."""
        self._rewrites[method] = change

    def freeze(self) -> None:
        """Answer nothing any more, not even health checks, with connections as they are."""
        self._thawed.clear()

    async def kill(self) -> None:
        """Break every connection and listen no more."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def open(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen, at the same address as before; with credentials, by TLS."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        address = f"127.0.0.1:{self.port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        await self._server.start()

    async def close(self) -> None:
        """End for good."""
        self._thawed.set()
        await self.kill()
        for channel in self._channels.values():
            await channel.close()

    # -- what it does with calls ----------------------------------------------------------------

    async def health(self, request: bytes, context: Any) -> bytes:
        """Well, unless frozen."""
        self.health_checks += 1
        await self._thawed.wait()
        return _SERVING

    async def unary(self, path: str, request: bytes, context: Any) -> bytes:
        """Hand a call on, or let its fault happen."""
        method, seen, fault = await self._arrived(path, request, context)
        with _noting_cancel(seen):
            if isinstance(fault, Refusal):
                await context.abort(fault.code, "made by the test", fault.trailing())
            if fault == "hold":
                await asyncio.Event().wait()
            try:
                answer: bytes = await self._call(path, request, context)
            except grpc.aio.AioRpcError as error:
                await _pass_on(error, context)
            if fault == "hold answer":
                await asyncio.Event().wait()
            if fault == "lose":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
            await self._thawed.wait()
            return self._rewrites.get(method, bytes)(answer)

    async def stream(self, path: str, request: bytes, context: Any) -> None:
        """Hand a stream on, or let its fault happen."""
        _, seen, fault = await self._arrived(path, request, context)
        with _noting_cancel(seen):
            if isinstance(fault, Refusal):
                await context.abort(fault.code, "made by the test", fault.trailing())
            call = self._call(path, request, context)
            try:
                async for message in call:
                    await self._thawed.wait()
                    if fault != "cut" or not _is_final(message):
                        await context.write(message)
                # For the mesh the reply has ended well by now; so it is replayed, not run again.
                if fault == "cut":
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was cut")
            except grpc.aio.AioRpcError as error:
                await _pass_on(error, context)
            finally:
                call.cancel()

    async def _arrived(self, path: str, request: bytes, context: Any) -> tuple[str, Seen, Any]:
        await self._thawed.wait()
        method = path.rpartition("/")[2]
        metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        seen = Seen(request, metadata, context.time_remaining())
        self._seen[method].append(seen)
        if metadata.get("authorization") in self._expired:
            return method, seen, EXPIRED
        faults = self._faults[method]
        return method, seen, faults.pop(0) if faults else None

    def _call(self, path: str, request: bytes, context: Any) -> Any:
        channel = self._channels[path.split(".")[1]]
        kind = channel.unary_stream if path.rpartition("/")[2] in _STREAMS else channel.unary_unary
        metadata = [(k, v) for k, v in context.invocation_metadata() if k in _HANDED_ON]
        return kind(path)(request, metadata=metadata, timeout=context.time_remaining())


class _Handlers(grpc.GenericRpcHandler):
    """Every method there is, with its bytes as they are."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        if path == _HEALTH:
            return grpc.unary_unary_rpc_method_handler(self._door.health)

        async def unary(request: bytes, context: Any) -> bytes:
            return await self._door.unary(path, request, context)

        async def stream(request: bytes, context: Any) -> None:
            await self._door.stream(path, request, context)

        if path.rpartition("/")[2] in _STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@contextmanager
def _noting_cancel(seen: Seen) -> Iterator[None]:
    """Note on a call that its caller cancelled it."""
    try:
        yield
    except asyncio.CancelledError:
        seen.cancelled.set()
        raise


def _is_final(message: bytes) -> bool:
    return bool(chat_pb2.ChatResponse.FromString(message).HasField("final"))


async def _pass_on(error: grpc.aio.AioRpcError, context: Any) -> None:
    details = [(k, v) for k, v in error.trailing_metadata() or () if k == _DETAILS]
    await context.abort(error.code(), error.details() or "", tuple(details))


@asynccontextmanager
async def doors(upstreams: Mapping[str, str], count: int = 2) -> AsyncIterator[list[Door]]:
    """So many replicas of a mesh, as its clients see it."""
    made = [Door(upstreams) for _ in range(count)]
    try:
        for door in made:
            await door.open()
        yield made
    finally:
        for door in made:
            await door.close()
