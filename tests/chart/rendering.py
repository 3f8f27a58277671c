"""The chart rendered by Helm's own code, as Python objects."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/echomesh"
SERVICES = ("auth", "embeddings", "gateway", "memory", "models", "routing")
RELEASE, NAMESPACE = "echomesh", "mesh"

Object = dict[str, Any]
Values = dict[str, Any]


def profile(name: str) -> Values:
    """The values of a file such as `values-demo.yaml`, by what stands between the two."""
    loaded: Values = yaml.safe_load((CHART / f"values-{name}.yaml").read_text())
    return loaded


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> Values:
    """Values with more over them, as Helm merges files."""
    result = copy.deepcopy(dict(values))
    for key, value in more.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both else value
    return result


def files(values: Values, chart_folder: Path = CHART) -> dict[str, str]:
    """What Helm renders, by template."""
    chart = helm.Chart.load(str(chart_folder))
    chart.validate_schema(values)
    return chart.render(values, name=RELEASE, namespace=NAMESPACE)


def where_lookups_find(found: Object, folder: Path) -> Path:
    """A copy of the chart whose `lookup` finds this: without a cluster it finds nothing."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    answer = f"fromJson `{json.dumps(found)}`"
    for path in chart.rglob("*.tpl"):
        path.write_text(re.sub(r'lookup "\S+" "\S+" \S+ \S+', answer, path.read_text()))
    return chart


def objects(values: Values, chart_folder: Path = CHART) -> list[Object]:
    """All objects of a release with these values."""
    rendered = files(values, chart_folder)
    texts = (text for name, text in sorted(rendered.items()) if name.endswith(".yaml"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def titles(found: list[Object]) -> list[str]:
    """Kind and name of each, sorted; the part of a Job's name that follows its content is left."""
    return sorted(f"{o['kind']} {o['metadata']['name'].partition('-keys-')[0]}" for o in found)


def of_kind(found: list[Object], *kinds: str) -> dict[str, Object]:
    """The objects of these kinds, by name without the release's."""
    return {
        o["metadata"]["name"].removeprefix(f"{RELEASE}-"): o for o in found if o["kind"] in kinds
    }


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """The pod specs in all objects, each with the name of its object."""
    for one in found:
        spec = one.get("spec") or {}
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], spec
        elif "template" in spec:
            yield one["metadata"]["name"], spec["template"]["spec"]


def environment(found: list[Object], service: str) -> dict[str, str]:
    """What the container of a service is told."""
    template = of_kind(found, "Deployment", "StatefulSet")[service]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, those that run first included."""
    return [*pod.get("initContainers", ()), *pod["containers"]]
