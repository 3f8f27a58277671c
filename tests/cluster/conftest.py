"""A release of the chart in a namespace of its own, installed from nothing.

KUBECONFIG         which cluster; kubectl and helm must be in PATH
CLUSTER_TOOL       builds and loads an image: `$CLUSTER_TOOL image TAG FOLDER ARGS...`; without it
                   the images must be where the cluster finds them
CLUSTER_TAG        their tag (dev), and CLUSTER_NEXT_TAG that of the images to upgrade to (next)
CLUSTER_POSTGRES   image of the demo's Postgres (the official one, or ours with CLUSTER_TOOL)
CLUSTER_JAEGER     image of a Jaeger (the official one, or with CLUSTER_TOOL ours around the
                   program ECHOMESH_JAEGER_BINARY)
CLUSTER_KEEP       leave the namespace when the tests are over
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.cluster.kube import CHART, INSTALL_S, ROOT, Namespace, run
from tests.cluster.load import POD
from tests.cluster.tracing import ENDPOINT, NAME, jaeger_objects

SERVICES = ("auth", "embeddings", "gateway", "memory", "models", "routing")
NAMESPACE = "echomesh-test"
TAG = os.environ.get("CLUSTER_TAG", "dev")
NEXT_TAG = os.environ.get("CLUSTER_NEXT_TAG", "next")
TOOL = os.environ.get("CLUSTER_TOOL", "")
POSTGRES = os.environ.get(
    "CLUSTER_POSTGRES", "echomesh/postgres:test" if TOOL else "docker.io/library/postgres:17"
)
JAEGER_BINARY = os.environ.get("ECHOMESH_JAEGER_BINARY", "")
JAEGER = os.environ.get(
    "CLUSTER_JAEGER",
    ("echomesh/jaeger:test" if JAEGER_BINARY else "")
    if TOOL
    else "docker.io/jaegertracing/jaeger:2.13.0",
)
BUILD_S = 1800.0
CLASS = "echomesh-test"

VALUES: dict[str, Any] = {
    "image": {"tag": TAG},
    "tracing": {"endpoint": ENDPOINT if JAEGER else ""},
    "routing": {
        "replicas": 2,
        "discoverModels": "echomesh/listener=mesh,app.kubernetes.io/component=models",
    },
    "models": {"replicas": 2},
    "auth": {"replicas": 2},
    # As nobody's cluster has cert-manager just for these tests.
    "meshTls": {"mode": "job"},
    "demo": {"postgres": {"image": POSTGRES, "storageClass": CLASS}},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a cluster the tests say what they lack."""
    missing = [name for name in ("kubectl", "helm") if shutil.which(name) is None]
    if not os.environ.get("KUBECONFIG"):
        missing.insert(0, "KUBECONFIG")
    for item in items:
        if missing and "tests/cluster" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def images() -> None:
    """Build and load the images, and those to upgrade to: the same with another label."""
    if not TOOL:
        return
    if not POSTGRES.startswith("docker.io/library/"):
        await build(POSTGRES, "tests/cluster/postgres")
    if JAEGER_BINARY:
        await build_jaeger()
    for tag in (TAG, NEXT_TAG):
        for service in SERVICES:
            arguments = ("--build-arg", f"SERVICE={service}", "--build-arg", f"REVISION={tag}")
            await build(f"echomesh/{service}:{tag}", ".", *arguments)


async def build(tag: str, folder: str | Path, *arguments: str) -> None:
    """Build an image of a folder, named from the repository's root, and load it."""
    await run(TOOL, "image", tag, str(ROOT / folder), *arguments, timeout_s=BUILD_S)


async def build_jaeger() -> None:
    """Build the stand-in for Jaeger's image around its program, and load it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "tests/cluster/jaeger/Dockerfile", folder)
        shutil.copy(JAEGER_BINARY, Path(folder) / "jaeger")
        await build(JAEGER, folder)


async def make_namespace(name: str) -> Namespace:
    """An empty namespace that refuses pods that are not restricted."""
    await drop_namespace(name)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": labels}
    namespace = Namespace(name)
    await namespace.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return namespace


async def drop_namespace(name: str, *, wait: bool = True) -> None:
    """Delete a namespace with all in it, which takes Kubernetes a minute, however little it is."""
    # Nobody is left whom they would have to serve on for.
    now = ("--all", "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
    await run("kubectl", "--namespace", name, "delete", "pods", *now)
    words = ("namespace", name, "--ignore-not-found", f"--timeout={INSTALL_S}s", f"--wait={wait}")
    await run("kubectl", "delete", *words, timeout_s=INSTALL_S + 30)


async def make_volume(name: str) -> None:
    """A folder of the node as the volume of Postgres, which outlives its pods.

    A pod of its own opens the folder to the database's user: such volumes have no owner group.
    """
    await run("kubectl", "delete", "pv", name, "--ignore-not-found", "--timeout=60s")
    path = f"/var/lib/{name}-{int(time.time())}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
        },
    }
    opener = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-opener"},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "data", "hostPath": volume["spec"]["hostPath"]}],
            "containers": [
                {
                    "name": "chmod",
                    "image": POSTGRES,
                    "command": ["chmod", "0777", "/data"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
        },
    }
    namespace = Namespace("default")
    await namespace.kubectl("delete", "pod", f"{name}-opener", "--ignore-not-found")
    await namespace.apply(volume, opener)
    done = ("--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}-opener", "--timeout=120s")
    await namespace.kubectl("wait", *done, timeout_s=150)
    await namespace.kubectl("delete", "pod", f"{name}-opener")


def load_pod() -> dict[str, Any]:
    """A pod that does nothing until programs of the tests are run in it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": POD,
                    "image": f"echomesh/routing:{TAG}",
                    "command": ["sleep", "infinity"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def options(path: Any, **more: Any) -> list[str]:
    """Helm's options for the demo with the tests' values, and more over them."""
    path.write_text(yaml.safe_dump({**VALUES, **more}))
    return ["-f", str(CHART / "values-demo.yaml"), "-f", str(path), f"--timeout={INSTALL_S}s"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(images: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Namespace]:
    """A mesh installed from nothing with `--wait`, and a pod beside it to chat from."""
    namespace = await make_namespace(NAMESPACE)
    await make_volume(NAMESPACE)
    await namespace.apply(load_pod())
    if JAEGER:
        await namespace.apply(*jaeger_objects(JAEGER))
        await namespace.kubectl("wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=100s")
    started = time.monotonic()
    given = options(tmp_path_factory.mktemp("values") / "values.yaml")
    await namespace.helm("install", "echomesh", str(CHART), "--wait", *given)
    print(f"\ninstalled in {time.monotonic() - started:.0f} s")
    await namespace.kubectl("wait", f"pod/{POD}", "--for=condition=Ready", "--timeout=100s")
    yield namespace
    if not os.environ.get("CLUSTER_KEEP"):
        await drop_namespace(NAMESPACE, wait=False)
        await run("kubectl", "delete", "pv", NAMESPACE, "--ignore-not-found", "--wait=false")
