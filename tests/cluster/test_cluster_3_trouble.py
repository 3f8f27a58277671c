"""What goes wrong is said in one line, can be repaired, and takes no data away."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import echomesh
from tests.cluster.conftest import POSTGRES, TAG, drop_namespace, make_namespace, options
from tests.cluster.kube import CHART, CommandFailed, Namespace

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATIENCE_S = 180.0
LOOPBACK = "127.0.0.3"
PASSWORD = "not-a-secret"
ADMIN_URL = f"postgresql://postgres:{PASSWORD}@db:5432/postgres"


@pytest_asyncio.fixture(loop_scope="session")
async def other(mesh: Namespace) -> AsyncIterator[Namespace]:
    """An empty namespace beside the mesh's."""
    namespace = await make_namespace(f"echomesh-trouble-{secrets.token_hex(3)}")
    yield namespace
    await drop_namespace(namespace.name, wait=False)


async def said(what: str, words: str, *command: str, namespace: Namespace) -> str:
    """Wait until a command's answer holds these words."""
    ends = time.monotonic() + PATIENCE_S
    answer = ""
    while words not in answer:
        assert time.monotonic() < ends, f"{what} does not say {words!r} but: {answer[-2000:]}"
        try:
            answer = await namespace.kubectl(*command)
        except CommandFailed as error:
            answer = str(error)
        await asyncio.sleep(0.5)
    return answer


async def test_a_wrong_value_is_refused_before_anything_is_made(
    other: Namespace, tmp_path: Path
) -> None:
    with pytest.raises(CommandFailed, match="'replica' not allowed"):
        given = options(tmp_path / "values.yaml", routing={"replica": 3})
        await other.helm("install", "echomesh", str(CHART), *given)
    assert json.loads(await other.helm("list", "--all", "-o", "json")) == []


async def test_a_setting_that_no_service_knows_leaves_the_running_pods_alone(
    mesh: Namespace, tmp_path: Path
) -> None:
    before = set(await mesh.ready("routing"))
    routing = {"replicas": 2, "settings": {"max_turn": 3}}
    given = options(tmp_path / "values.yaml", routing=routing)
    await mesh.helm("upgrade", "echomesh", str(CHART), "--no-hooks", *given)
    selector = ("-l", "app.kubernetes.io/component=routing", "--tail=5", "--prefix")
    words = "unknown setting ECHOMESH_ROUTING_MAX_TURN (did you mean ECHOMESH_ROUTING_MAX_TURNS?)"
    await said("routing's log", words, "logs", *selector, namespace=mesh)
    assert set(await mesh.ready("routing")) == before
    await mesh.helm("rollback", "echomesh", "--wait", "--timeout=600s")
    assert set(await mesh.ready("routing")) == before


def elsewhere() -> list[dict[str, Any]]:
    """A Postgres that is not of the release, as a managed one is not."""
    metadata = {"name": "db", "labels": {"app": "db"}}
    container = {
        "name": "postgres",
        "image": POSTGRES,
        "env": [
            {"name": "PGDATA", "value": "/data/pgdata"},
            {"name": "POSTGRES_PASSWORD_FILE", "value": "/password/password"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "run", "mountPath": "/var/run/postgresql"},
            {"name": "password", "mountPath": "/password"},
        ],
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 999,
        "fsGroup": 999,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    volumes = [
        {"name": "data", "emptyDir": {}},
        {"name": "run", "emptyDir": {}},
        {"name": "password", "secret": {"secretName": "admin"}},
    ]
    spec = {"securityContext": security, "containers": [container], "volumes": volumes}
    service = {"selector": {"app": "db"}, "ports": [{"port": 5432}]}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


async def test_a_missing_secret_and_a_database_that_is_away_are_named_and_repaired(
    other: Namespace, tmp_path: Path
) -> None:
    """Whatever was missing: once it is there the same release comes up and is upgraded."""
    given = options(
        tmp_path / "values.yaml",
        demo={"postgres": {"enabled": False}},
        database={"adminSecret": {"name": "admin"}},
        routing={"replicas": 1},
        models={"replicas": 1},
        auth={"replicas": 1},
    )
    # Its Job would be waited for.
    await other.helm("install", "echomesh", str(CHART), "--set=bootstrap.enabled=false", *given)
    events = ("get", "events", "--field-selector", "reason=FailedMount")
    await said("the events", 'secret "admin" not found', *events, namespace=other)
    literals = (f"--from-literal=url={ADMIN_URL}", f"--from-literal=password={PASSWORD}")
    await other.kubectl("create", "secret", "generic", "admin", *literals)
    job = (await other.get("jobs"))["items"][0]["metadata"]["name"]
    words = "the database: db cannot be used"
    await said("the Job's log", words, "logs", f"job/{job}", namespace=other)
    pod = ("logs", "echomesh-memory-0", "-c", "migrate")
    words = "memory: the database at db cannot be used"
    await said("the migration's log", words, *pod, namespace=other)
    await other.apply(*elsewhere())
    await other.helm("upgrade", "echomesh", str(CHART), "--wait", *given)
    assert (await other.secret("echomesh-credentials"))["api_key"]
    assert len(await other.ready("memory")) == 1


async def test_uninstall_leaves_the_data_and_a_new_release_goes_on_with_it(
    mesh: Namespace, tmp_path: Path
) -> None:
    key = (await mesh.secret("echomesh-credentials"))["api_key"]

    async def recalled(text: str = "") -> list[str]:
        async with (
            mesh.forwarded(LOOPBACK, ("routing", "auth", "memory")),
            echomesh.Client(
                f"{LOOPBACK}:7400", api_key=key, forwarded=True, timeout_s=60
            ) as client,
        ):
            user = client.as_user("stays")
            if text:
                _, final = await user.reply(text)
                assert final.message_stored == "stored"
            result = await user.recall("Where does my bicycle stand?")
            return [hit.memory.text for hit in result.hits]

    text = "My bicycle stands behind the green shed."
    assert text in await recalled(text)
    notes = await mesh.helm("get", "notes", "echomesh")
    assert "leaves the Secrets echomesh-keys and echomesh-credentials" in notes
    await mesh.helm("uninstall", "echomesh", "--wait")
    kept = {found["metadata"]["name"] for found in (await mesh.get("pvc"))["items"]}
    assert "data-echomesh-postgres-0" in kept
    given = options(tmp_path / "values.yaml", image={"tag": TAG})
    await mesh.helm("install", "echomesh", str(CHART), "--wait", *given)
    assert (await mesh.secret("echomesh-credentials"))["api_key"] == key
    assert text in await recalled()
