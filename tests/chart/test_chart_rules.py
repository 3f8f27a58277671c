"""What holds for all pods, whatever the values: rights, probes, secrets, time to end."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from tests.chart.rendering import (
    CHART,
    ROOT,
    SERVICES,
    Object,
    Values,
    containers,
    environment,
    files,
    merged,
    objects,
    of_kind,
    pods,
    profile,
    where_lookups_find,
)

DEMO, PRODUCTION = objects(profile("demo")), objects(profile("production"))
BOTH = pytest.mark.parametrize("found", [DEMO, PRODUCTION], ids=["demo", "production"])
# The default deadline of a chat, docs/contracts.md: no stream lasts longer unasked.
LONGEST_STREAM_S = 60
# Between a new replica's readiness and its first call.
SPREAD_S = 10


@BOTH
def test_every_pod_is_restricted(found: list[Object]) -> None:
    for _, pod in pods(found):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]


@BOTH
def test_only_the_jobs_that_fill_a_secret_reach_the_api_server(found: list[Object]) -> None:
    with_token = {name for name, pod in pods(found) if pod["automountServiceAccountToken"]}
    assert {name.removeprefix("echomesh-").partition("-")[0] for name in with_token} == {
        "keys",
        "bootstrap",
    }
    for role in of_kind(found, "Role").values():
        (rule,) = role["rules"]
        assert (rule["resources"], rule["verbs"]) == (["secrets"], ["get", "patch"])
        assert len(rule["resourceNames"]) == 1
    assert of_kind(found, "ClusterRole", "ClusterRoleBinding") == {}


def test_routing_may_read_where_models_are_only_when_it_is_told_to_look() -> None:
    found = objects(merged(profile("demo"), {"routing": {"discoverModels": "part=models"}}))
    (rule,) = of_kind(found, "Role")["routing"]["rules"]
    assert (rule["resources"], rule["verbs"]) == (["endpointslices"], ["get", "list", "watch"])
    binding = of_kind(found, "RoleBinding")["routing"]
    assert binding["subjects"][0]["name"] == "echomesh-routing"
    pod = of_kind(found, "Deployment")["routing"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is True
    settings = environment(found, "routing")
    assert settings["ECHOMESH_ROUTING_MODELS_INSTANCES"] == "kubernetes:part=models"
    assert "routing" not in of_kind(DEMO, "Role")


@BOTH
def test_probes_ask_the_plaintext_health_port_for_the_services_own_health(
    found: list[Object],
) -> None:
    workloads = of_kind(found, "Deployment", "StatefulSet")
    for service in SERVICES:
        (container,) = workloads[service]["spec"]["template"]["spec"]["containers"]
        port = {p["name"]: p["containerPort"] for p in container["ports"]}["health"]
        settings = environment(found, service)
        assert settings[f"ECHOMESH_{service.upper()}_HEALTH_ADDRESS"] == f"0.0.0.0:{port}"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            # Without a name it is the service's own: no dependency/NAME is asked for.
            assert container[probe]["grpc"] == {"port": port}


@BOTH
def test_a_pod_gets_longer_to_end_than_the_longest_stream_lasts(found: list[Object]) -> None:
    for service in SERVICES:
        settings = environment(found, service)
        drain, grace = (int(settings[f"ECHOMESH_{k}_S"]) for k in ("DRAIN", "STOP_GRACE"))
        pod = of_kind(found, "Deployment", "StatefulSet")[service]["spec"]["template"]["spec"]
        assert grace > LONGEST_STREAM_S
        assert pod["terminationGracePeriodSeconds"] > drain + grace


@BOTH
def test_a_service_sees_its_own_key_alone_and_only_migrations_the_owners_password(
    found: list[Object],
) -> None:
    for service in SERVICES:
        pod = of_kind(found, "Deployment", "StatefulSet")[service]["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        sources = [source["secret"] for source in volumes["keys"]["projected"]["sources"]]
        seen = {item["key"] for secret in sources for item in secret["items"]}
        others = {f"{other}.key" for other in SERVICES} - {f"{service}.key"}
        assert not seen & others
        assert ("wrapping.key" in seen) is (service == "auth")
        mounts = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
        assert "owner" not in mounts
        migrates = [c["args"] for c in pod.get("initContainers", ())]
        assert migrates == ([["migrate"]] if service in {"auth", "memory"} else [])


@BOTH
def test_secrets_reach_containers_as_files_and_never_as_environment(found: list[Object]) -> None:
    for _, pod in pods(found):
        for container in containers(pod):
            assert all("secretRef" not in source for source in container.get("envFrom", ()))
            assert all("valueFrom" not in entry for entry in container.get("env", ()))


def fields(path: str) -> set[str]:
    """The settings that a module declares, without running it."""
    tree = ast.parse((ROOT / path).read_text())
    return {
        statement.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


@BOTH
def test_every_setting_that_the_chart_gives_is_one_that_the_service_knows(
    found: list[Object],
) -> None:
    common = fields("services/runtime/settings.py")
    for service in SERVICES:
        known = common | fields(f"services/{service}/config.py")
        for key in environment(found, service):
            name = key.removeprefix("ECHOMESH_")
            own = name.removeprefix(f"{service.upper()}_").lower()
            candidates = {own, own.removesuffix("_file"), name.lower()}
            assert candidates & known, f"{service} does not know {key}"


def test_images_are_named_by_registry_repository_and_tag_or_digest() -> None:
    digest = f"sha256:{'a' * 64}"
    values = merged(
        profile("demo"),
        {
            "image": {"registry": "r.example.com", "tag": "9"},
            "auth": {"image": {"tag": "8"}},
            "memory": {"image": {"repository": "mine/memory"}},
            "models": {"image": {"digest": digest}},
        },
    )
    found = of_kind(objects(values), "Deployment", "StatefulSet")
    images = {s: found[s]["spec"]["template"]["spec"]["containers"][0]["image"] for s in SERVICES}
    assert images == {
        "auth": "r.example.com/echomesh/auth:8",
        "embeddings": "r.example.com/echomesh/embeddings:9",
        "gateway": "r.example.com/echomesh/gateway:9",
        "memory": "r.example.com/mine/memory:9",
        "models": f"r.example.com/echomesh/models@{digest}",
        "routing": "r.example.com/echomesh/routing:9",
    }


def test_a_changed_setting_gives_new_pods_of_that_service_alone() -> None:
    def templates(**more: Any) -> dict[str, Object]:
        found = of_kind(objects(merged(profile("demo"), more)), "Deployment", "StatefulSet")
        return {service: found[service]["spec"]["template"] for service in SERVICES}

    before, after = templates(), templates(routing={"settings": {"max_turns": 3}})
    assert {s for s in SERVICES if before[s] != after[s]} == {"routing"}


def test_a_pod_with_a_gpu_ends_before_its_successor_starts() -> None:
    models = of_kind(PRODUCTION, "Deployment")["models"]["spec"]
    assert models["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (container,) = models["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    others = of_kind(PRODUCTION, "Deployment")["routing"]["spec"]["strategy"]["rollingUpdate"]
    assert others == {"maxSurge": 1, "maxUnavailable": 0}


def test_what_cannot_be_made_anew_stays_on_uninstall() -> None:
    kept = {
        f"{one['kind']} {one['metadata']['name']}"
        for one in PRODUCTION
        if one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    assert kept == {"PersistentVolumeClaim echomesh-model-cache"}


def test_secrets_that_jobs_fill_are_made_once_and_never_sent_again(tmp_path: Path) -> None:
    """As hooks they are no part of a release, so neither `--force` nor a rollback touches them."""
    secrets = of_kind(PRODUCTION, "Secret")
    assert set(secrets) == {"keys", "credentials"}
    for secret in secrets.values():
        assert secret["metadata"]["annotations"] == {
            "helm.sh/hook": "pre-install,pre-upgrade",
            "helm.sh/hook-delete-policy": "hook-failed",
        }
    there = where_lookups_find({"kind": "Secret"}, tmp_path)
    again = objects(profile("production"), there)
    assert of_kind(again, "Secret") == {}
    assert len(again) == len(PRODUCTION) - len(secrets)


def test_pods_of_the_release_before_read_no_settings_of_this_one() -> None:
    """They may start again during an upgrade, and refuse settings that they do not know."""
    for found in (DEMO, PRODUCTION):
        for _, pod in pods(found):
            assert all("envFrom" not in container for container in containers(pod))
            assert all("configMap" not in volume for volume in pod["volumes"])


def test_settings_reach_services_as_they_were_written() -> None:
    settings = {"a": 2000000, "b": 0.25, "c": True, "d": "$(HOME) $$", "e": [1e6]}
    values: Values = {"routing": {"settings": settings}}
    values["demo"] = {"postgres": {"user": 1000650000}}
    values["drainSeconds"] = values["stopGraceSeconds"] = 1000000
    found = objects(merged(profile("demo"), values))
    told = environment(found, "routing")
    # Kubernetes makes one of two dollars, and leaves the brackets alone then.
    given = [told[f"ECHOMESH_ROUTING_{name}"].replace("$$", "$") for name in "ABCDE"]
    assert given == ["2000000", "0.25", "true", "$(HOME) $$", "[1000000]"]
    assert told["ECHOMESH_ROUTING_D"].count("$") == 6
    postgres = of_kind(found, "StatefulSet")["postgres"]["spec"]["template"]["spec"]
    assert postgres["securityContext"]["runAsUser"] == 1000650000
    assert (told["ECHOMESH_DRAIN_S"], told["ECHOMESH_STOP_GRACE_S"]) == ("1000000", "1000000")


def test_each_upstreams_key_comes_from_its_secret_as_a_file() -> None:
    url, secret = "https://a.example.com/v1", {"name": "mine", "key": "token"}
    upstreams = [{"url": "http://b/v1"}, {"url": url, "name": "a", "apiKeySecret": secret}]
    found = objects(merged(profile("demo"), {"models": {"upstreams": upstreams}}))
    assert json.loads(environment(found, "models")["ECHOMESH_MODELS_UPSTREAMS"]) == [
        {"url": "http://b/v1"},
        {"url": url, "name": "a", "api_key_file": "/keys/upstream-1-api-key"},
    ]
    pod = of_kind(found, "Deployment")["models"]["spec"]["template"]["spec"]
    (keys,) = (volume for volume in pod["volumes"] if volume["name"] == "keys")
    (projected,) = (
        source["secret"]
        for source in keys["projected"]["sources"]
        if source["secret"]["name"] == "mine"
    )
    assert projected["items"] == [{"key": "token", "path": "upstream-1-api-key"}]


def test_every_setting_that_is_a_secret_is_refused_among_the_settings() -> None:
    declared = {
        match
        for path in ("runtime/settings", *(f"{service}/config" for service in SERVICES))
        for match in re.findall(
            r"^    (\w+): SecretStr.*Field",
            (ROOT / f"services/{path}.py").read_text(),
            re.MULTILINE,
        )
    }
    assert {"qdrant_api_key", "database_url", "jobs_database_url"} <= declared
    for name in declared:
        with pytest.raises(helm.HelmError, match=name):
            files(merged(profile("demo"), {"settings": {name: "s"}}))


def test_connections_are_renewed_often_enough_for_new_replicas_to_be_called_in_time() -> None:
    """Each service's are renewed after so long, a tenth more or less."""
    for found in (DEMO, PRODUCTION):
        for service in SERVICES:
            age = float(environment(found, service)["ECHOMESH_CONNECTION_AGE_S"])
            assert age * 1.1 < SPREAD_S


def test_gateways_and_the_test_pod_reach_pods_as_these_listen() -> None:
    for route in of_kind(PRODUCTION, "GRPCRoute").values():
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            name = backend["name"].removeprefix("echomesh-")
            (port,) = of_kind(PRODUCTION, "Service")[name]["spec"]["ports"]
            assert port["appProtocol"] == "kubernetes.io/h2c"
            assert environment(PRODUCTION, name)["ECHOMESH_PUBLIC_PLAINTEXT"] == "true"


@pytest.mark.parametrize("tls", ["", "mesh-tls"])
def test_helms_test_stays_inside_the_cluster_whatever_sdks_are_told(tls: str) -> None:
    public = {"host": "mesh.example.com", "tls": {"secretName": tls}}
    found = objects(merged(profile("demo"), {"public": public}))
    assert environment(found, "routing")["ECHOMESH_ROUTING_AUTH_ENDPOINT"] == "mesh.example.com:443"
    pod = of_kind(found, "Pod")["test"]["spec"]
    (container,) = pod["containers"]
    told = {entry["name"]: entry["value"] for entry in container["env"]}
    assert json.loads(told["ENDPOINTS"]) == {
        name: f"echomesh-{name}.mesh.svc.cluster.local:{port}"
        for name, port in (("routing", 7400), ("auth", 7401), ("memory", 7402))
    }
    notes = files(merged(profile("demo"), {"public": public}))["echomesh/templates/NOTES.txt"]
    assert (f"endpoints={told['ENDPOINTS']}" in notes) is (not tls)
    # The certificate names the public host, and its authority may be a private one.
    assert (told["TLS"], told["SERVER_NAME"]) == (str(bool(tls)).lower(), "mesh.example.com")
    secrets = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "tls"]
    items = [(s["optional"], [item["path"] for item in s["items"]]) for s in secrets]
    assert items == ([(True, ["ca.crt"])] if tls else [])


def test_a_budget_is_by_what_stays_or_by_what_may_go() -> None:
    values = merged(profile("demo"), {"memory": {"podDisruptionBudget": {"maxUnavailable": 1}}})
    budgets = of_kind(objects(values), "PodDisruptionBudget")
    wanted = {"memory": ("maxUnavailable", 1), "routing": ("minAvailable", 1)}
    for service, (key, value) in wanted.items():
        spec = budgets[service]["spec"]
        assert {k: spec.get(k) for k in ("maxUnavailable", "minAvailable") if k in spec} == {
            key: value
        }


def test_the_public_host_leads_to_every_service_that_sdks_are_told_of() -> None:
    config = (ROOT / "services/routing/config.py").read_text()
    told = {f"echomesh.{name}" for name in re.findall(r'"(\w+\.v1\.\w+)":', config)}
    routes = of_kind(PRODUCTION, "GRPCRoute").values()
    led = {r["spec"]["rules"][0]["matches"][0]["method"]["service"] for r in routes}
    assert led == told
    assert told


def test_the_chart_and_the_packages_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert {chart["version"], chart["appVersion"]} == {version[1]}
