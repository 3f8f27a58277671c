"""What a service offers to the cluster that runs it: probes, new connections, an orderly end."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime import server as server_module
from services.runtime.server import Server, run_server
from services.runtime.settings import ServiceSettings
from tests.support.transport import Text, method, registration

PATIENCE_S = 60.0


async def echo(request: Any, context: Any) -> Any:
    return request


async def started(folder: Path, **settings: Any) -> Server:
    """A server with one method on its public listener."""
    given = ServiceSettings(public_address="127.0.0.1:0", data_dir=folder, **settings)
    server = Server("memory", given, public=[registration(Public=echo)])
    await server.start()
    return server


async def test_a_probe_needs_neither_tls_nor_a_token_and_finds_health_alone(
    tmp_path: Path,
) -> None:
    server = await started(tmp_path, health_address="127.0.0.1:0")
    async with grpc.aio.insecure_channel(server.health_bound) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "memory"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(channel, "Public")(Text(value="x"))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(grace_s=0)


async def test_a_probe_is_told_when_the_service_stops(tmp_path: Path) -> None:
    server = await started(tmp_path, health_address="127.0.0.1:0")
    async with grpc.aio.insecure_channel(server.health_bound) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.ensure_future(server.stop(grace_s=10))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_a_client_connects_anew_after_the_connections_age(tmp_path: Path) -> None:
    """Else a replica that was added would get no calls from clients that were there before."""
    peers: set[str] = set()

    async def note(request: Any, context: Any) -> Any:
        peers.add(context.peer())
        return request

    settings = ServiceSettings(
        public_address="127.0.0.1:0", data_dir=tmp_path, connection_age_s=1.0
    )
    server = Server("memory", settings, public=[registration(Public=note)])
    await server.start()
    async with grpc.aio.insecure_channel(server.public_bound) as channel:
        async with asyncio.timeout(PATIENCE_S):
            while len(peers) < 2:
                assert (await method(channel, "Public")(Text(value="x"))).value == "x"
                await asyncio.sleep(0.05)
    await server.stop(grace_s=0)


async def test_a_stopping_service_lets_calls_end_for_as_long_as_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Logs and traces are set up for the whole process, which other tests share.
    nothing = SimpleNamespace(close=lambda: None, shutdown=lambda: None)
    monkeypatch.setattr(server_module, "setup_logs", lambda *_: nothing)
    monkeypatch.setattr(server_module, "setup_telemetry", lambda *_: nothing)
    begun, may_end, bound = asyncio.Event(), asyncio.Event(), asyncio.Future[str]()

    async def slow(request: Any, context: Any) -> Any:
        begun.set()
        await may_end.wait()
        return request

    class Telling(Server):
        async def start(self) -> None:
            await super().start()
            bound.set_result(self.public_bound)

    settings = ServiceSettings(
        public_address="127.0.0.1:0", data_dir=tmp_path, drain_s=0.0, stop_grace_s=PATIENCE_S
    )

    async def build(_: AsyncExitStack) -> Server:
        return Telling("memory", settings, public=[registration(Public=slow)])

    running = asyncio.ensure_future(run_server("memory", settings, build))
    async with grpc.aio.insecure_channel(await bound) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = asyncio.ensure_future(method(channel, "Public")(Text(value="x")))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        signal.raise_signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not running.done()
        may_end.set()
        assert (await asyncio.wait_for(call, PATIENCE_S)).value == "x"
    await asyncio.wait_for(running, PATIENCE_S)
