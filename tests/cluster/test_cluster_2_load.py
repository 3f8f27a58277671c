"""People chat while pods are replaced, killed, frozen and scaled: no error, and nothing lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import NEXT_TAG, SERVICES, TAG, VALUES, options
from tests.cluster.kube import CHART, INSTALL_S, Namespace, until
from tests.cluster.load import chatting

pytestmark = pytest.mark.asyncio(loop_scope="session")
# What the issue allows between a new replica's readiness and its first call.
SPREAD_S = 10.0
# For what kubectl takes to count calls, on a busy machine.
COUNTING_S = 20.0
# The service is no process 1, so that any container of its pod may send it signals.
FREEZE = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if b"services.routing" in (folder / "cmdline").read_bytes().split(b"\\0"):
        os.kill(int(folder.name), signal.SIGSTOP)
        print("frozen")
"""


async def images(mesh: Namespace, service: str) -> set[str]:
    """The images that a service's pods run, those that are ending included."""
    selector = f"app.kubernetes.io/component={service}"
    pods = (await mesh.get("pods", "-l", selector))["items"]
    return {pod["spec"]["containers"][0]["image"] for pod in pods}


async def test_an_upgrade_and_a_rollback_cost_no_error_and_no_message(
    mesh: Namespace, tmp_path: Path
) -> None:
    """Forth service by service, so each runs release N beside N-1 of the others; back at once."""
    before = (await mesh.release())["version"]
    values: dict[str, Any] = {}
    async with chatting(mesh, "upgrade") as load:
        started = time.monotonic()
        for service in SERVICES:
            values[service] = {**VALUES.get(service, {}), "image": {"tag": NEXT_TAG}}
            given = options(tmp_path / "values.yaml", **values)
            await mesh.helm("upgrade", "echomesh", str(CHART), "--wait", *given)
            assert f"echomesh/{service}:{NEXT_TAG}" in await images(mesh, service)
            await load.is_whole()
        print(f"\nupgraded in {time.monotonic() - started:.0f} s, {load.replies} replies")
        started = time.monotonic()
        await mesh.helm("rollback", "echomesh", str(before), "--wait", f"--timeout={INSTALL_S}s")
        print(f"rolled back in {time.monotonic() - started:.0f} s, {load.replies} replies")
        for service in SERVICES:
            assert f"echomesh/{service}:{TAG}" in await images(mesh, service)
        await load.is_whole()
    await load.assert_promises(mesh)


@pytest.mark.parametrize("service", ["routing", "models", "auth", "embeddings", "memory"])
async def test_a_pod_that_is_deleted_costs_no_error_and_no_message(
    mesh: Namespace, service: str
) -> None:
    async with chatting(mesh, f"delete-{service}") as load:
        for pod in await mesh.ready(service):
            await mesh.kubectl("delete", "pod", pod, "--wait=false")
            await load.goes_on()
            kind = "statefulset" if service == "memory" else "deployment"
            await mesh.rolled_out(kind, f"echomesh-{service}")
            await load.is_whole()
    await load.assert_promises(mesh)


async def test_a_pod_that_is_killed_costs_no_error_and_no_message(mesh: Namespace) -> None:
    async with chatting(mesh, "kill") as load:
        for service in ("routing", "models", "memory"):
            pod = (await mesh.ready(service))[0]
            await mesh.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
            await load.goes_on()
            kind = "statefulset" if service == "memory" else "deployment"
            await mesh.rolled_out(kind, f"echomesh-{service}")
            await load.is_whole()
    await load.assert_promises(mesh)


async def test_a_routing_pod_that_freezes_costs_no_error_and_is_started_again(
    mesh: Namespace,
) -> None:
    async with chatting(mesh, "freeze", people=8) as load:
        pod = (await mesh.ready("routing"))[0]
        assert "frozen" in await mesh.python(pod, FREEZE)

        async def replaced() -> bool:
            found = await mesh.get("pod", pod)
            status = found["status"]["containerStatuses"][0]
            return bool(status["restartCount"] and status["ready"])

        await load.goes_on()
        await until(replaced, "liveness ends the frozen container and it is ready again")
        await load.is_whole()
    await load.assert_promises(mesh)


async def test_chats_go_on_while_postgres_is_away_and_nothing_acknowledged_is_lost(
    mesh: Namespace,
) -> None:
    async with chatting(mesh, "postgres") as load:
        await mesh.kubectl("delete", "pod", "echomesh-postgres-0", "--wait=false")
        await load.goes_on()
        await mesh.rolled_out("statefulset", "echomesh-postgres")
        await load.is_whole()
    await load.assert_promises(mesh)


async def calls(mesh: Namespace) -> dict[str, float]:
    """How many calls each ready routing pod has answered."""
    name = "echomesh_rpc_server_seconds_count"
    return {pod: await mesh.metric(pod, 7420, name) for pod in await mesh.ready("routing")}


async def test_calls_spread_over_all_pods_of_a_scaled_service(mesh: Namespace) -> None:
    """From one to three and back; a new pod is called within ten seconds of being ready."""

    async def scale(replicas: int) -> None:
        await mesh.kubectl("scale", "deployment/echomesh-routing", f"--replicas={replicas}")

        async def there() -> bool:
            return len(await mesh.ready("routing")) == replicas

        await until(there, f"{replicas} routing pods")

    try:
        async with chatting(mesh, "scale", people=12) as load:
            await scale(1)
            await load.goes_on()
            await scale(3)
            before, ready_at = await calls(mesh), time.monotonic()

            async def spread() -> bool:
                now = await calls(mesh)
                return all(now[pod] > before.get(pod, 0.0) + 1 for pod in now)

            await until(spread, "calls reach every pod", SPREAD_S + COUNTING_S)
            print(f"\nspread over three {time.monotonic() - ready_at:.1f} s after they were ready")
            await scale(1)
            await load.goes_on()
        await load.assert_promises(mesh)
    finally:
        await scale(2)
