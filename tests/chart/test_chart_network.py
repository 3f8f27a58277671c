"""The network policies: nothing by default, and exactly the mesh's edges."""

from __future__ import annotations

import re
from typing import get_args

from tests.chart.rendering import (
    ROOT,
    SERVICES,
    Object,
    environment,
    merged,
    objects,
    of_kind,
    profile,
)
from tests.support import policies
from tests.support.policies import Direction, Edge

DEMO, PRODUCTION = objects(profile("demo")), objects(profile("production"))
# (caller, called, listener), as docs/architecture.md draws them.
MESH = {
    ("embeddings", "auth", "mesh"),
    ("gateway", "auth", "mesh"),
    ("gateway", "embeddings", "mesh"),
    ("gateway", "memory", "mesh"),
    ("gateway", "models", "mesh"),
    ("gateway", "routing", "mesh"),
    ("memory", "auth", "mesh"),
    ("memory", "embeddings", "mesh"),
    ("models", "auth", "mesh"),
    ("models", "embeddings", "mesh"),
    ("routing", "auth", "mesh"),
    ("routing", "memory", "mesh"),
    ("routing", "models", "mesh"),
}
# Only where a model makes the vectors of recall.
BY_MODEL = ("embeddings", "models", "mesh")


def edges(found: list[Object], direction: Direction) -> set[Edge]:
    """The edges inside the release that its policies allow, as seen from one of their ends."""
    return policies.edges(of_kind(found, "NetworkPolicy").values(), direction)


def test_everything_of_the_release_is_denied_what_no_policy_allows() -> None:
    deny = of_kind(DEMO, "NetworkPolicy")["deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny.keys()
    assert "app.kubernetes.io/component" not in deny["podSelector"]["matchLabels"]


def test_between_services_exactly_the_meshs_edges_are_open_at_both_ends() -> None:
    for found in (DEMO, PRODUCTION):
        for direction in get_args(Direction):
            among = {e for e in edges(found, direction) if {e[0], e[1]} <= set(SERVICES)}
            assert among == MESH


def test_the_edges_are_the_calls_that_the_services_make() -> None:
    """Every service asks auth for its keys; the rest stands in their composition roots."""
    calls = set()
    for service in SERVICES:
        folder = ROOT / f"services/{service}"
        text = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
        calls |= {(service, peer, "mesh") for peer in re.findall(r'channel\("(\w+)"\)', text)}
        if "open_security" in text and "fetch=" not in text:
            calls.add((service, "auth", "mesh"))
    assert calls == MESH | {BY_MODEL}


def test_embeddings_reach_models_only_where_a_model_makes_the_vectors() -> None:
    more = {"embeddings": {"settings": {"dense_model": "vllm/gte", "dense_dimensions": 768}}}
    found = objects(merged(profile("demo"), more))
    for direction in get_args(Direction):
        assert edges(found, direction) - edges(DEMO, direction) == {BY_MODEL}
    assert "ECHOMESH_MODELS_TARGET" in environment(found, "embeddings")
    assert "ECHOMESH_MODELS_TARGET" not in environment(DEMO, "embeddings")


def test_only_those_with_a_schema_and_the_jobs_reach_the_demos_postgres() -> None:
    clients = {"auth", "memory", "keys", "bootstrap"}
    wanted = {(client, "postgres", "postgres") for client in clients}
    for direction in get_args(Direction):
        assert {e for e in edges(DEMO, direction) if e[1] == "postgres"} == wanted


def test_a_service_is_told_where_each_of_those_is_that_it_may_call_and_of_no_other() -> None:
    for service in SERVICES:
        told = {
            key
            for key in environment(DEMO, service)
            if re.fullmatch(r"ECHOMESH_[A-Z]+_TARGET", key)
        }
        assert told == {f"ECHOMESH_{b.upper()}_TARGET" for a, b, _ in MESH if a == service}


def test_addresses_outside_the_release_are_open_only_where_the_values_name_them() -> None:
    """Postgres for those with a schema, Qdrant for memory, the collector for all."""
    open_ports = {}
    for service in SERVICES:
        rules = of_kind(PRODUCTION, "NetworkPolicy")[service]["spec"]["egress"]
        outside = [r for r in rules if not any("podSelector" in p for p in r.get("to", ()))]
        open_ports[service] = {port["port"] for rule in outside for port in rule["ports"]}
    assert open_ports == {
        "auth": {53, 5432, 4317},
        "embeddings": {53, 4317},
        "gateway": {53, 4317},
        "memory": {53, 5432, 6334, 4317},
        "models": {53, 4317},
        "routing": {53, 4317},
    }


def test_the_test_pod_reaches_the_public_listeners_whoever_else_may() -> None:
    wanted = {("test", service, "public") for service in ("auth", "gateway", "memory", "routing")}
    assert {e for e in edges(PRODUCTION, "Egress") if e[0] == "test"} == wanted
    assert {e for e in edges(PRODUCTION, "Ingress") if e[0] == "test"} == wanted


def test_routing_that_looks_for_models_may_reach_models_pods_and_no_others() -> None:
    found = objects(merged(profile("demo"), {"routing": {"discoverModels": "part=models"}}))
    rules = of_kind(found, "NetworkPolicy")["routing"]["spec"]["egress"]
    peers = [peer["podSelector"] for rule in rules for peer in rule.get("to", ())]
    assert all("app.kubernetes.io/component" in peer["matchLabels"] for peer in peers)
    foreign = [p for p in peers if "app.kubernetes.io/instance" not in p["matchLabels"]]
    assert [p["matchLabels"]["app.kubernetes.io/component"] for p in foreign] == ["models"]
    for called in ("auth", "embeddings"):
        rules = of_kind(found, "NetworkPolicy")[called]["spec"]["ingress"]
        assert {"podSelector": foreign[0]} in rules[0]["from"]
        assert rules[0]["ports"][0]["port"] == "mesh"
    assert str(foreign[0]["matchLabels"]) not in str(DEMO)
