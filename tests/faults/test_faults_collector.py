"""Case 14: the trace collector is dead or slow. Nobody notices; lost spans are counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from echomesh import Client
from services.runtime.trust import create_trust
from tests.support.mesh import RunningMesh, free_port_base, metric, running_mesh, until
from tests.support.otlp import absent, silent

Collector = Callable[[], AbstractContextManager[str]]
WAIT_S = 60
# Calls, of which each leaves a span in memory at least.
FLOOD = 200
# A service may take this long to end before it is killed; see services/cli.
STOP_S = 12.0

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", params=[absent, silent], ids=["dead", "slow"])
def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMesh]:
    collector: Collector = request.param
    with collector() as endpoint:
        folder = tmp_path_factory.mktemp("collector") / "data"
        with running_mesh(folder, env={"ECHOMESH_OTLP_ENDPOINT": endpoint}) as running:
            yield running


def _lost(mesh: RunningMesh, name: str) -> float:
    """How many spans a service says it has lost."""
    return metric(mesh.file.metrics[name], "echomesh_spans_dropped_total")


async def test_callers_see_nothing_of_a_collector_that_is_away_and_spans_are_counted(
    mesh: RunningMesh,
) -> None:
    """Replies come whole and stored while every span is lost, and the metric says how many."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        user = client.as_user("traced")
        for number in range(20):
            _, final = await user.reply(f"Note {number}.", conversation_id=f"c{number}")
            assert (final.message_stored, final.reply_stored) == ("stored", "stored")
    for name in ("routing", "memory"):
        until(lambda name=name: _lost(mesh, name) > 0, WAIT_S, f"counting {name}'s lost spans")


async def test_a_flood_of_spans_does_not_pile_up_and_no_call_fails_for_it(
    mesh: RunningMesh,
) -> None:
    """Every call leaves spans that nobody takes; they are dropped, one after another, and told."""
    before = _lost(mesh, "memory")
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        user = client.as_user("flood")
        await user.remember("The kettle is blue.")
        for _ in range(FLOOD):
            assert (await user.recall("kettle")).hits
    until(lambda: _lost(mesh, "memory") - before >= FLOOD, WAIT_S, "the dropping of their spans")


@pytest.mark.parametrize("collector", [absent, silent], ids=["dead", "slow"])
def test_a_service_with_spans_that_nobody_takes_ends_in_order(
    tmp_path: Path, collector: Collector
) -> None:
    """SIGTERM ends it by itself within the time it gets, with status 0, spans or not."""
    create_trust(tmp_path / "trust", ("models",))
    base = free_port_base()
    with collector() as endpoint:
        env = {
            **os.environ,
            "ECHOMESH_DATA_DIR": str(tmp_path),
            "ECHOMESH_MODELS_MESH_ADDRESS": f"127.0.0.1:{base}",
            "ECHOMESH_OTLP_ENDPOINT": endpoint,
        }
        process = subprocess.Popen([sys.executable, "-m", "services.models"], env=env)
        try:
            until(lambda: _refused_call(f"127.0.0.1:{base}"), WAIT_S, "the start of models")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
            process.wait()


def _refused_call(address: str) -> bool:
    """Make a call that leaves a span behind; whether the service was there."""
    with grpc.insecure_channel(address) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/echomesh.models.v1.ModelService/ListModels")(b"", timeout=5)
    return True


def test_a_mesh_whose_collector_is_away_stops_in_order(mesh: RunningMesh) -> None:
    """Ctrl-C stops all of it with status 0, as ever; it is the last test of its mesh."""
    assert mesh.stop() == 0
