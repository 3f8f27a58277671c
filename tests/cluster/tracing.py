"""A Jaeger beside the release, which takes the mesh's spans and draws who calls whom."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.cluster.kube import Namespace
from tests.support.jaeger import jaeger_config

NAME = "jaeger"
OTLP, QUERY = 4317, 16686
ENDPOINT = f"http://{NAME}:{OTLP}"
_FOLDER = "/etc/jaeger"
_MILLISECONDS = 1000
_LOOKBACK_MS = 24 * 3600 * _MILLISECONDS
_CONFIG = jaeger_config(
    otlp=f"0.0.0.0:{OTLP}", query=f"0.0.0.0:{QUERY}", query_grpc="127.0.0.1:16685"
)


def jaeger_objects(image: str) -> list[dict[str, Any]]:
    """A configuration, a restricted pod with everything in memory, and its Service."""
    meta = {"name": NAME, "labels": {"app": NAME}}
    ports = [{"name": "otlp", "port": OTLP}, {"name": "query", "port": QUERY}]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"c.yaml": _CONFIG}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": NAME}, "ports": ports},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": _pod(image)},
    ]


def _pod(image: str) -> dict[str, Any]:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
        "containers": [
            {
                "name": NAME,
                "image": image,
                "args": ["--config", f"file:{_FOLDER}/c.yaml"],
                "volumeMounts": [{"name": "config", "mountPath": _FOLDER}],
                "securityContext": security,
            }
        ],
    }


async def callers(namespace: Namespace) -> set[tuple[str, str]]:
    """(caller, called) of all calls between services that Jaeger has seen in the last day."""
    now = round(time.time() * _MILLISECONDS)
    path = f"/api/v1/namespaces/{namespace.name}/pods/{NAME}:{QUERY}/proxy/api/dependencies"
    query = f"?endTs={now}&lookback={_LOOKBACK_MS}"
    links = json.loads(await namespace.kubectl("get", "--raw", path + query))["data"] or []
    return {(link["parent"], link["child"]) for link in links if link["parent"] != link["child"]}
