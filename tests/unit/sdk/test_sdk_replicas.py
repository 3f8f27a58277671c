"""The SDK among several replicas: it goes round them, and leaves those that die or freeze."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import echomesh
from echomesh.auth.v1 import auth_pb2_grpc
from echomesh.memory.v1 import memory_pb2_grpc
from echomesh.routing.v1 import chat_pb2_grpc, routing_pb2_grpc
from tests.unit.sdk.test_sdk_client import FakeMesh

TIMEOUT_S = 40.0


class Replica(FakeMesh, health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """One replica of everything; frozen, it takes calls and answers none, as after SIGSTOP."""

    frozen = False
    health_is_unknown = False
    freezes_after_text = False
    slow = False
    cancels = 0
    calls = 0
    own_address = ""
    server: grpc.aio.Server

    async def _stand_still(self) -> None:
        if self.frozen:
            await asyncio.Event().wait()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._stand_still()
        if self.health_is_unknown:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such service")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def GetEndpoints(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._stand_still()
        return await super().GetEndpoints(request, context)

    async def Recall(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls += 1
        if self.cancels:
            self.cancels -= 1
            await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        await self._stand_still()
        if self.slow:
            await asyncio.sleep(5)  # longer than a call may be silent before health is looked at
        return await super().Recall(request, context)

    async def Chat(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._stand_still()
        async for response in super().Chat(request, context):
            yield response
            if self.freezes_after_text and response.HasField("text"):
                self.frozen = True
                await self._stand_still()

    async def start(self) -> None:
        self.server = grpc.aio.server()
        auth_pb2_grpc.add_AuthServiceServicer_to_server(self, self.server)
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(self, self.server)
        chat_pb2_grpc.add_ChatServiceServicer_to_server(self, self.server)
        routing_pb2_grpc.add_MeshServiceServicer_to_server(self, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self, self.server)
        port = self.server.add_insecure_port(self.own_address or "127.0.0.1:0")
        await self.server.start()
        self.own_address = f"127.0.0.1:{port}"


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Replica, Replica, echomesh.Client]]:
    """Two replicas that know of each other, and a client that was given both addresses."""
    async with AsyncExitStack() as stack:
        pair = (Replica(), Replica())
        for replica in pair:
            await replica.start()
            stack.push_async_callback(replica.server.stop, None)
        everywhere = ",".join(replica.own_address for replica in pair)
        for replica in pair:
            replica.address = everywhere
        client = echomesh.Client(everywhere, api_key="k", timeout_s=TIMEOUT_S)
        yield *pair, await stack.enter_async_context(client)


async def test_calls_go_round_all_replicas() -> None:
    async with two() as (first, second, client):
        for _ in range(10):
            await client.recall("q")
        assert first.calls > 0
        assert second.calls > 0


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_dead_replica_is_passed_over_and_used_again_when_it_is_back(victim: int) -> None:
    async with two() as (*pair, client):
        await client.recall("q")
        dead, alive = pair[victim], pair[1 - victim]
        await dead.server.stop(None)
        for _ in range(6):
            await client.recall("q")
        assert alive.calls >= 6
        calls = dead.calls
        await dead.start()
        async with asyncio.timeout(TIMEOUT_S):
            while dead.calls == calls:
                await client.recall("q")
                await asyncio.sleep(0.05)
        await dead.server.stop(None)


async def test_a_replica_is_used_again_although_health_is_not_routed_to_it() -> None:
    """A gateway in between may send the services' own calls only."""
    async with two() as (first, _, client):
        await client.recall("q")
        first.health_is_unknown = True
        first.unavailable = 1
        calls = first.calls
        async with asyncio.timeout(TIMEOUT_S):
            while first.calls < calls + 3:
                await client.recall("q")
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_frozen_replica_costs_no_call_and_then_no_time(victim: int) -> None:
    """One call notices, by the missing health; the next ones are not sent there."""
    async with two() as (*pair, client):
        await client.recall("q")
        frozen = pair[victim]
        frozen.frozen = True
        calls = frozen.calls
        for _ in range(8):
            assert (await client.recall("q")).hits
        assert frozen.calls <= calls + 1


async def test_a_replica_that_is_slow_but_well_is_waited_for() -> None:
    async with two() as (first, second, client):
        first.slow = second.slow = True
        assert (await client.recall("q")).hits
        assert first.calls + second.calls == 1


async def test_a_reply_goes_on_elsewhere_when_its_replica_freezes_in_the_middle() -> None:
    async with two() as (first, second, client):
        first.freezes_after_text = True
        for _ in range(2):  # one of the two goes to the first replica
            frames = [frame async for frame in client.chat("hi", timeout_s=TIMEOUT_S)]
            assert isinstance(frames[-1], echomesh.Final)
        assert first.frozen
        assert set(first.chat_ids) <= set(second.chat_ids)


async def test_a_client_that_leaves_a_silent_call_is_not_told_that_its_replica_is_lost() -> None:
    async with two() as (first, second, client):
        await client.recall("q")
        first.frozen = second.frozen = True
        task = asyncio.create_task(client.recall("q"))
        async with asyncio.timeout(TIMEOUT_S):
            while first.calls + second.calls < 2:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


CONNECTING_S = 2.0


@asynccontextmanager
async def far_away(port: int) -> AsyncIterator[str]:
    """An address at which a connection takes long to be made: round trips of TCP, TLS, HTTP/2."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(CONNECTING_S)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def test_a_mesh_on_the_other_side_of_the_world_can_be_reached() -> None:
    """A limit on connecting leaves room for slow links: a retry would begin from nothing."""
    async with two() as (first, _, _):
        async with far_away(int(first.own_address.split(":")[1])) as address:
            first.address = address
            async with echomesh.Client(address, api_key="k", timeout_s=TIMEOUT_S) as client:
                assert (await client.recall("q")).hits


async def test_a_call_that_a_stopping_server_cancels_is_made_again() -> None:
    """So gRPC ends, without a reason of ours, a call that arrives just as its server stops."""
    async with two() as (*pair, client):
        for replica in pair:
            replica.cancels = 1
        result = await client.recall("q")
        assert [hit.memory.text for hit in result.hits] == ["q"]
        assert sum(replica.cancels for replica in pair) < 2


@asynccontextmanager
async def balanced(replicas: list[Replica]) -> AsyncIterator[str]:
    """One address for several replicas: each new connection goes to the first of the list."""
    piping: set[asyncio.Task[None]] = set()

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = replicas[0].own_address.split(":")
        back_reader, back_writer = await asyncio.open_connection(host, int(port))
        for ends in ((reader, back_writer), (back_reader, writer)):
            piping.add(asyncio.create_task(pipe(*ends)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in piping:
            task.cancel()


async def test_behind_a_balancer_a_frozen_replica_is_left_by_a_new_connection() -> None:
    """Such as a Service of Kubernetes, which balances connections; keepalive would take 25 s."""
    async with two() as (first, second, _):
        replicas = [first, second]
        async with balanced(replicas) as address:
            first.address = second.address = address
            async with echomesh.Client(address, api_key="k", timeout_s=20.0) as client:
                await client.recall("q")
                assert (first.calls, second.calls) == (1, 0)
                first.frozen = True
                replicas.reverse()
                await client.recall("q")
                assert second.calls == 1
