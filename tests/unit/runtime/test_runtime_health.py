"""Health is a service's own; what it reaches is told apart, and to the mesh alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.health import Answer, Reach, ask_health, ask_reach
from services.runtime.channel import ChannelFactory
from services.runtime.clock import SystemClock
from services.runtime.errors import unavailable
from services.runtime.health import Dependency
from services.runtime.server import Server
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionSigner
from services.runtime.trust import create_trust, load_private

PATIENCE_S = 20


async def here() -> bool:
    return True


async def away() -> bool:
    raise unavailable("index")


async def frozen() -> bool:
    await asyncio.sleep(60)
    return True


@asynccontextmanager
async def needing(folder: Path, **dependencies: Dependency) -> AsyncIterator[Server]:
    """A server with these dependencies."""
    settings = ServiceSettings(
        public_address="127.0.0.1:0", mesh_address="127.0.0.1:0", data_dir=folder
    )
    server = Server("memory", settings, dependencies=dependencies)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0)


async def test_what_is_away_or_frozen_is_named_and_the_service_stays_healthy(
    tmp_path: Path,
) -> None:
    async with needing(tmp_path, postgres=here, index=away, embeddings=frozen) as server:
        assert await ask_reach(server.mesh_bound) == Reach(("postgres",), ("embeddings", "index"))
        assert await ask_health(server.mesh_bound, 5.0) is Answer.SERVING
        async with grpc.aio.insecure_channel(server.mesh_bound) as channel:
            asked = health_pb2.HealthCheckRequest(service="memory")
            watch = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=30)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING


async def refused() -> bool:
    raise RuntimeError("the password is wrong")


async def test_what_fails_in_a_way_of_its_own_counts_as_missing_and_hides_nothing(
    tmp_path: Path,
) -> None:
    async with needing(tmp_path, postgres=refused, embeddings=here) as server:
        assert await ask_reach(server.mesh_bound) == Reach(("embeddings",), ("postgres",))


async def test_many_who_ask_at_once_look_at_a_dependency_once_at_a_time(tmp_path: Path) -> None:
    """Health is never refused: else a flood of questions would use up Postgres' connections."""
    looking: list[int] = []
    most = 0

    async def look() -> bool:
        nonlocal most
        looking.append(1)
        most = max(most, len(looking))
        await asyncio.sleep(0.05)  # as long as a question takes; nothing waits for it here
        looking.pop()
        return True

    async with needing(tmp_path, postgres=look) as server:
        answers = await asyncio.gather(*(ask_reach(server.mesh_bound) for _ in range(10)))
    assert set(answers) == {Reach(("postgres",), ())}
    assert most == 1


async def test_the_public_listener_does_not_say_what_is_reached(tmp_path: Path) -> None:
    async with needing(tmp_path, postgres=here) as server:
        async with grpc.aio.insecure_channel(server.public_bound) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.List(health_pb2.HealthListRequest(), timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_channel_that_was_never_used_connects_when_it_is_looked_at(tmp_path: Path) -> None:
    create_trust(tmp_path, ("routing",))
    signer = AssertionSigner("routing", load_private(tmp_path, "routing"), SystemClock())
    async with needing(tmp_path) as server:
        settings = ServiceSettings(memory_target=f"ipv4:{server.mesh_bound}", data_dir=tmp_path)
        factory = ChannelFactory(settings, signer)
        factory.channel("memory")
        reached = factory.dependencies()["memory"]
        async with asyncio.timeout(PATIENCE_S):
            while not await reached():
                await asyncio.sleep(0.01)
        await server.stop(grace_s=0)
        async with asyncio.timeout(PATIENCE_S):
            while await reached():
                await asyncio.sleep(0.01)
        await factory.close()


async def test_a_port_that_takes_connections_and_says_nothing_is_silent() -> None:
    """So a frozen process looks: its kernel still takes the connection."""

    async def hold(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await ask_health(f"127.0.0.1:{port}", 0.5) is Answer.SILENT
    server.close()
    assert await ask_health("127.0.0.1:1", 5.0) is Answer.AWAY
    assert await ask_reach("127.0.0.1:1") is None
