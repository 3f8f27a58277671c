"""What a caller sees when a replica freezes, dies, drains or refuses: see facts.md, gRPC."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from echomesh.memory.v1 import memory_pb2, memory_pb2_grpc
from services.runtime.channel import ChannelFactory, MeshChannel
from services.runtime.clock import SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.retry import service_config
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionSigner
from services.runtime.trust import create_trust, load_private
from tests.support.transport import Text, method, registration, serving

# A frozen peer is given up after one keepalive period and one ping timeout; the rest is slack
# for a loaded machine.
_NOTICED_S = 8.0
_AWAY = {Reason.DEADLINE_EXCEEDED, Reason.DEPENDENCY_UNAVAILABLE}


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    create_trust(tmp_path, ("routing", "memory"))
    return tmp_path


@asynccontextmanager
async def peer(folder: Path, address: str = "127.0.0.1:0") -> AsyncIterator[Any]:
    """A server in a process of its own; `.address` is where it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.echo_program", address, str(folder),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    try:
        yield _Peer(process, line.decode().strip())
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            await process.wait()


class _Peer:
    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address
        self.pid = str(process.pid)


@asynccontextmanager
async def calling(trust: Path, *addresses: str) -> AsyncIterator[MeshChannel]:
    """A channel of the real factory to `memory` at these addresses."""
    settings = ServiceSettings(memory_target=f"ipv4:{','.join(addresses)}", data_dir=trust)
    signer = AssertionSigner("routing", load_private(trust, "routing"), SystemClock())
    factory = ChannelFactory(settings, signer)
    try:
        yield factory.channel("memory")
    finally:
        await factory.close()


async def answered_by(channel: MeshChannel, timeout: float = 5.0) -> str:
    return str((await method(channel, "Anyone")(Text(), timeout=timeout)).value)


async def seen(channel: MeshChannel, pids: set[str]) -> None:
    """Call until every one of these replicas has answered."""
    missing = set(pids)
    async with asyncio.timeout(10):
        while missing:
            missing.discard(await answered_by(channel))
            await asyncio.sleep(0.01)


async def test_calls_are_spread_over_the_replicas_and_leave_one_that_freezes(trust: Path) -> None:
    async with (
        peer(trust) as one,
        peer(trust) as two,
        calling(trust, one.address, two.address) as channel,
    ):
        await seen(channel, {one.pid, two.pid})
        one.process.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        streak = 0
        while streak < 20:
            try:
                streak = streak + 1 if await answered_by(channel, 1.0) == two.pid else 0
            except AppError as error:
                if error.reason not in _AWAY:
                    raise
                streak = 0
            assert time.monotonic() - frozen_at < _NOTICED_S
        one.process.send_signal(signal.SIGCONT)
        await seen(channel, {one.pid, two.pid})


async def test_a_restarted_peer_is_found_again_at_once(trust: Path) -> None:
    async with peer(trust) as first, calling(trust, first.address) as channel:
        assert await answered_by(channel) == first.pid
        first.process.kill()
        await first.process.wait()
        with pytest.raises(AppError) as away:
            await answered_by(channel)
        assert away.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert away.value.retry_after_s
        async with peer(trust, first.address) as second:
            started = time.monotonic()
            await seen_again(channel, second.pid)
            assert time.monotonic() - started < 3.0


async def seen_again(channel: MeshChannel, pid: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                assert await answered_by(channel) == pid
                return
            except AppError:
                await asyncio.sleep(0.02)


async def test_a_peer_that_drains_gets_no_new_calls_and_stops_without_waiting_for_watchers(
    trust: Path,
) -> None:
    async def mark(request: Any, context: Any) -> Any:
        return Text(value="draining")

    async with peer(trust) as other, serving(trust, registration(Anyone=mark)) as wire:
        async with calling(trust, other.address, wire.server.mesh_bound) as channel:
            await seen(channel, {other.pid, "draining"})
            started = time.monotonic()
            stopping = asyncio.create_task(wire.server.stop(grace_s=10, drain_s=0.5))
            await asyncio.sleep(0.3)  # the promise is a time: NOT_SERVING drains within 100 ms
            assert {await answered_by(channel) for _ in range(20)} == {other.pid}
            await stopping
            assert time.monotonic() - started < 5


async def test_a_dead_target_fails_in_our_own_terms_and_within_the_deadline(trust: Path) -> None:
    async with calling(trust, "127.0.0.1:1") as channel:
        started = time.monotonic()
        with deadline_scope(2.0), pytest.raises(AppError) as caught:
            await answered_by(channel)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert caught.value.metadata == {"dependency": "memory"}
    assert time.monotonic() - started < 2.5


class _Stopping(memory_pb2_grpc.MemoryServiceServicer):
    """A server whose gRPC ends what reaches it as it stops, so many times."""

    def __init__(self, cancels: int) -> None:
        self._cancels = cancels

    async def Recall(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._cancels -= 1
        if self._cancels >= 0:
            await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return memory_pb2.RecallResponse()


@asynccontextmanager
async def stopping(cancels: int) -> AsyncIterator[str]:
    """Such a server; its address."""
    server = grpc.aio.server()
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(_Stopping(cancels), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_an_idempotent_call_that_a_stopping_peer_ends_is_tried_again(trust: Path) -> None:
    async with stopping(1) as address, calling(trust, address) as channel:
        recall = memory_pb2_grpc.MemoryServiceStub(channel).Recall
        assert await recall(memory_pb2.RecallRequest(), timeout=20) == memory_pb2.RecallResponse()


async def test_a_peer_that_ends_every_call_is_away_and_the_call_not_cancelled(trust: Path) -> None:
    async with stopping(99) as address, calling(trust, address) as channel:
        with pytest.raises(AppError) as caught:
            recall = memory_pb2_grpc.MemoryServiceStub(channel).Recall
            await recall(memory_pb2.RecallRequest(), timeout=20)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def test_only_what_its_proto_calls_idempotent_is_tried_again() -> None:
    config = json.loads(service_config("memory"))
    retried = {entry["name"][0]["method"] for entry in config["methodConfig"]}
    assert {"Recall", "Remember"} <= retried
    for entry in config["methodConfig"]:
        assert 2 <= entry["retryPolicy"]["maxAttempts"] <= 5
        assert entry["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
        # Broken in gRPC: it fires early and is not sent (facts.md).
        assert "timeout" not in entry


def test_channels_are_balanced_with_health_checks() -> None:
    config = json.loads(service_config("memory"))
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert config["healthCheckConfig"] == {"serviceName": "memory"}
