"""How a server stops: running calls end in peace, and nothing else is waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.errors import AppError, Reason
from services.runtime.server import Server
from services.runtime.settings import ServiceSettings
from tests.support.transport import Text, method, registration

# Far above what a stop takes, far below the grace that is given.
LIMIT_S = 15.0


class Slow:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> Any:
        self.begun.set()
        await self.may_end.wait()
        return request


async def started(folder: Path, handler: Slow) -> Server:
    settings = ServiceSettings(public_address="127.0.0.1:0", data_dir=folder)
    server = Server("memory", settings, public=[registration(Public=handler)])
    await server.start()
    return server


async def test_a_balancer_that_watches_health_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Every connection of a round-robin channel has such a watch, for as long as it lasts."""
    server = await started(tmp_path, Slow())
    async with grpc.aio.insecure_channel(server.public_bound) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.wait_for(server.stop(grace_s=60), LIMIT_S)


async def test_a_call_under_way_ends_in_peace_although_the_server_stops(tmp_path: Path) -> None:
    slow = Slow()
    server = await started(tmp_path, slow)
    async with grpc.aio.insecure_channel(server.public_bound) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = asyncio.ensure_future(method(channel, "Public")(Text(value="x")))
        await slow.begun.wait()
        stopping = asyncio.ensure_future(server.stop(grace_s=60))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not stopping.done()
        slow.may_end.set()
        assert (await call).value == "x"
        await asyncio.wait_for(stopping, LIMIT_S)


class SlowKeys:
    """A validator that waits for auth's keys, and then finds no token valid."""

    def __init__(self) -> None:
        self.asked, self.found = asyncio.Event(), asyncio.Event()

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Any:
        self.asked.set()
        await self.found.wait()
        raise AppError(Reason.TOKEN_INVALID, "the token is not valid")


async def test_a_call_whose_token_is_still_being_checked_is_waited_for_too(tmp_path: Path) -> None:
    keys = SlowKeys()
    settings = ServiceSettings(public_address="127.0.0.1:0", data_dir=tmp_path)
    server = Server("memory", settings, public=[registration(One=Slow())])
    server.validator = keys  # type: ignore[assignment]
    await server.start()
    async with grpc.aio.insecure_channel(server.public_bound) as channel:
        signed = [("authorization", "Bearer x")]
        call = asyncio.ensure_future(method(channel, "One")(Text(value="x"), metadata=signed))
        await keys.asked.wait()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.ensure_future(server.stop(grace_s=60))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        was_over = stopping.done()
        keys.found.set()
        await asyncio.wait_for(stopping, LIMIT_S)
        await asyncio.wait({call})
    refused = call.exception()
    assert not was_over
    assert isinstance(refused, grpc.aio.AioRpcError)
    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_that_never_ends_is_cut_off_after_the_grace(tmp_path: Path) -> None:
    slow = Slow()
    server = await started(tmp_path, slow)
    async with grpc.aio.insecure_channel(server.public_bound) as channel:
        call = asyncio.ensure_future(method(channel, "Public")(Text(value="x")))
        await slow.begun.wait()
        await asyncio.wait_for(server.stop(grace_s=0.1), LIMIT_S)
        await asyncio.wait({call})
        assert call.cancelled() or isinstance(call.exception(), grpc.aio.AioRpcError)
