"""The exact set of objects of each profile, each valid for the Kubernetes versions we name."""

from __future__ import annotations

from pathlib import Path

import helm_python as helm
import kubernetes_validate
import pytest

from tests.chart.rendering import CHART, SERVICES, Values, merged, objects, profile, titles

OBJECTS = Path(__file__).parent / "objects"
# Of operators; their definitions are theirs, and no schema of them is here.
FOREIGN = {
    "Certificate",
    "GRPCRoute",
    "HTTPRoute",
    "Issuer",
    "PrometheusRule",
    "ScaledObject",
    "ServiceMonitor",
}
DEMO, PRODUCTION = profile("demo"), profile("production")
OWN_SECRETS: Values = {
    "keys": {"existingSecret": "my-keys"},
    "database": {"existingSecret": "my-database", "adminSecret": {"name": ""}, "pooled": True},
    "bootstrap": {"enabled": False},
}
VARIANTS: dict[str, Values] = {
    "demo": DEMO,
    "production": PRODUCTION,
    "own-secrets": merged(PRODUCTION, OWN_SECRETS),
    "cert-manager": merged(DEMO, {"meshTls": {"mode": "cert-manager"}}),
    "certificates-by-job": merged(DEMO, {"meshTls": {"mode": "job"}}),
    "no-policies": merged(DEMO, {"networkPolicy": {"enabled": False}}),
    "ingress": merged(
        DEMO,
        {
            "public": {
                "host": "mesh.example.com",
                "httpHost": "chat.example.com",
                "ingress": {"enabled": True, "tlsSecretName": "t"},
            }
        },
    ),
    "keda": merged(
        DEMO,
        {
            "routing": {
                "keda": {
                    "enabled": True,
                    "triggers": [{"type": "prometheus", "metadata": {"threshold": "50"}}],
                }
            }
        },
    ),
    "discovery": merged(DEMO, {"routing": {"discoverModels": "echomesh/listener=mesh"}}),
    "edge-on-a-volume": merged(DEMO, {"memory": {"persistence": {"enabled": True}}}),
    "upstreams": merged(
        DEMO,
        {
            "models": {
                "upstreams": [
                    {"url": "https://llm.example.com/v1", "name": "a"},
                    {"url": "https://b.example.com/v1", "apiKeySecret": {"name": "other"}},
                ],
                "upstreamKeySecret": {"name": "llm"},
                "cache": {"enabled": True, "existingClaim": "files"},
            }
        },
    ),
    "everything-set": merged(
        DEMO,
        {
            "fullnameOverride": "other",
            "image": {"registry": "r.example.com", "tag": "2", "pullSecrets": ["a", "b"]},
            "settings": {"channelz": True},
            "tracing": {"endpoint": "http://collector:4317", "collectorConfig": True},
            "public": {"tls": {"secretName": "tls"}},
            "defaults": {
                "settings": {"reflection": True},
                "env": [{"name": "TZ", "value": "UTC"}],
                "priorityClassName": "high",
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "x", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "podAnnotations": {"a": "b"},
                "podLabels": {"c": "d"},
                "serviceAccountAnnotations": {"e": "f"},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "podDisruptionBudget": {"maxUnavailable": "50%"},
            },
            "routing": {"image": {"digest": f"sha256:{'0' * 64}"}},
        },
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_every_object_is_valid_and_no_field_is_unknown(name: str, version: str) -> None:
    for one in objects(VARIANTS[name]):
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", ["demo", "production", "own-secrets"])
def test_a_profile_renders_exactly_these_objects(name: str) -> None:
    """Helm drops a template that renders to nothing without a word."""
    assert titles(objects(VARIANTS[name])) == (OBJECTS / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", VARIANTS)
def test_helms_own_lint_has_nothing_to_say(name: str) -> None:
    report = helm.lint(str(CHART), VARIANTS[name], strict=True, kube_version="v1.34.0")
    worth = [m for m in report["messages"] if m["severity"] >= 2]
    assert (worth, report["errors"]) == ([], [])


def test_no_name_is_given_twice() -> None:
    for values in VARIANTS.values():
        found = objects(values)
        names = [(o["kind"], o["metadata"]["name"]) for o in found]
        assert len(set(names)) == len(names)


def test_every_service_has_a_workload_a_budget_and_an_account() -> None:
    found = titles(objects(DEMO))
    for service in SERVICES:
        workload = "StatefulSet" if service == "memory" else "Deployment"
        for kind in (workload, "PodDisruptionBudget", "ServiceAccount"):
            assert f"{kind} echomesh-{service}" in found
