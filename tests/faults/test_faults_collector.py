"""Case 14: the trace collector is dead or slow. Nobody notices; lost spans are counted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from echomesh import Client
from services.runtime.trust import create_trust
from tests.support.dead_collectors import absent, silent
from tests.support.mesh import RunningMesh, free_port_base, running_mesh, until

Collector = Callable[[], AbstractContextManager[str]]
WAIT_S = 60
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


def _metric(address: str, name: str) -> float:
    """The sum of a metric over its labels; 0 if it is not there."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))


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
        address = mesh.file.metrics[name]
        until(
            lambda address=address: _metric(address, "echomesh_spans_dropped_total") > 0,
            WAIT_S,
            f"the counting of {name}'s lost spans",
        )


async def test_memory_of_lost_spans_is_bounded_and_later_ones_are_dropped_at_once(
    mesh: RunningMesh,
) -> None:
    """More spans than the queue holds: calls go on, and none waits for the collector."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        user = client.as_user("flood")
        await user.remember("The kettle is blue.")
        for _ in range(200):
            assert (await user.recall("kettle")).hits
    assert _metric(mesh.file.metrics["memory"], "echomesh_log_lines_dropped_total") == 0


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
