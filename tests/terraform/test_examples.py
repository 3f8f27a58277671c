"""The examples planned: what they would make, and that the chart takes what they give it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, files, merged, of_kind
from tests.terraform.conftest import ROOT, VARIANTS

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=VARIANTS)
def plan(
    request: pytest.FixtureRequest, plans: dict[str, Future[dict[str, Any]]]
) -> dict[str, Any]:
    """An example's plan."""
    return plans[request.param].result()


def resources(plan: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What a plan would make of a kind: the attributes that are known."""
    found = [one for one in plan["resource_changes"] if one["type"] == kind]
    return [one["change"]["after"] for one in found if one["mode"] == "managed"]


def release(plan: dict[str, Any], name: str) -> dict[str, Any]:
    """The Helm release of that name."""
    (found,) = [one for one in resources(plan, "helm_release") if one["name"] == name]
    return found


def values(found: dict[str, Any]) -> dict[str, Any]:
    """A release's values, the later ones over the earlier ones."""
    result: dict[str, Any] = {}
    for text in found["values"]:
        result = merged(result, yaml.safe_load(text) or {})
    return result


def test_an_example_makes_what_a_mesh_needs(plan: dict[str, Any]) -> None:
    made = Counter(one["type"] for one in plan["resource_changes"] if one["mode"] == "managed")
    assert made["aws_vpc"] == made["aws_eks_cluster"] == made["aws_db_instance"] == 1
    assert made["aws_s3_bucket"] == 1
    assert made["aws_ecr_repository"] == 6
    assert made["aws_eks_addon"] == 5
    assert all(
        one["change"]["actions"] in (["create"], ["read"]) for one in plan["resource_changes"]
    )


def test_nothing_is_public_and_everything_is_encrypted(plan: dict[str, Any]) -> None:
    (database,) = resources(plan, "aws_db_instance")
    assert database["storage_encrypted"]
    assert not database["publicly_accessible"]
    (cluster,) = resources(plan, "aws_eks_cluster")
    assert cluster["vpc_config"][0]["public_access_cidrs"] == ["203.0.113.7/32"]
    open_rules = [
        rule
        for rule in resources(plan, "aws_vpc_security_group_ingress_rule")
        if rule["cidr_ipv4"] == "0.0.0.0/0"
    ]
    assert not open_rules


def test_no_secret_stands_in_a_plan(plan: dict[str, Any]) -> None:
    text = json.dumps(plan["resource_changes"])
    assert "postgresql://" not in text
    (database,) = resources(plan, "aws_db_instance")
    assert database["password"] is None
    assert database["password_wo"] is None
    assert release(plan, "echomesh-platform")["set_wo"] is None


def test_the_chart_takes_what_an_example_gives_it(plan: dict[str, Any]) -> None:
    given = values(release(plan, "echomesh"))
    assert given["image"]["registry"] == "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    rendered = files(given, CHART)
    assert any("kind: Deployment" in text for text in rendered.values())
    assert "echomesh-platform-database-admin" in "".join(rendered.values())


def test_the_platform_chart_writes_the_secret_that_the_mesh_reads(plan: dict[str, Any]) -> None:
    given = values(release(plan, "echomesh-platform")) | {"databaseUrl": "postgresql://a:b@c/d"}
    folder = ROOT / "terraform/modules/platform/chart"
    found = [yaml.safe_load(text) for text in files(given, folder).values()]
    secret = of_kind(found, "Secret")
    named = values(release(plan, "echomesh"))["database"]["adminSecret"]
    (written,) = secret.values()
    assert written["metadata"]["name"] == named["name"]
    assert written["stringData"] == {named["key"]: "postgresql://a:b@c/d"}
    (volumes,) = of_kind(found, "StorageClass").values()
    assert volumes["parameters"]["encrypted"] == "true"


CORES = {"m6a.large": 2, "c6a.xlarge": 4}
GIB = {"m6a.large": 8, "c6a.xlarge": 8}


def test_what_pods_ask_for_fits_in_production_with_a_node_gone(plan: dict[str, Any]) -> None:
    groups = resources(plan, "aws_eks_node_group")
    (nodes,) = [group for group in groups if not group["taint"]]
    spare = int(resources(plan, "aws_db_instance")[0]["multi_az"])  # as production is
    left, kind = nodes["scaling_config"][0]["min_size"] - spare, nodes["instance_types"][0]
    rendered = files(values(release(plan, "echomesh")), CHART)
    asked = [*requests({name: text for name, text in rendered.items() if name.endswith(".yaml")})]
    if any(one["name"] == "qdrant" for one in resources(plan, "helm_release")):
        own = values(release(plan, "qdrant"))
        asked.append((own["replicaCount"], own["resources"]["requests"]))
    # A tenth of a node is the system's, and half a core and a GiB the add-ons' on all of them.
    assert sum(n * cores(one["cpu"]) for n, one in asked) + 0.5 <= 0.9 * left * CORES[kind]
    assert sum(n * gib(one["memory"]) for n, one in asked) + 1 <= 0.8 * left * GIB[kind]


def requests(texts: dict[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """How many pods of each service ask for what, but for those on nodes with GPUs."""
    for text in texts.values():
        for one in filter(None, yaml.safe_load_all(text)):
            pod = one.get("spec", {}).get("template", {}).get("spec", {})
            if one["kind"] in ("Deployment", "StatefulSet") and "nodeSelector" not in pod:
                # An autoscaled one says no number: it begins with the least.
                count = one["spec"].get("replicas", 3)
                yield count, pod["containers"][0]["resources"]["requests"]


def cores(asked: str) -> float:
    """'250m' -> 0.25."""
    return float(asked[:-1]) / 1000 if asked.endswith("m") else float(asked)


def gib(asked: str) -> float:
    """'512Mi' -> 0.5."""
    return float(asked[:-2]) / (1024 if asked.endswith("Mi") else 1)
