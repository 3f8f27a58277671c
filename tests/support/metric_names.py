"""The metrics that the code makes, that docs/metrics.md names, and that a PromQL query reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "metrics.md"
_MAKERS = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "GaugeMetricFamily": "gauge",
    "CounterMetricFamily": "counter",
}
_ROW = re.compile(r"^\| `(echomesh_\w+)` \| (\w+) \| ([\w, ]*)\|", re.MULTILINE)
# The Prometheus client's own, as far as they are read.
_CLIENTS = ("process_resident_memory_bytes", "process_cpu_seconds_total", "python_info")
# Of PromQL: operators, aggregations' clauses and modifiers, which look like names.
_WORDS = frozenset(("and", "or", "unless", "offset", "bool", "inf", "nan"))


@dataclass(frozen=True, order=True)
class Metric:
    """A metric as the code makes it."""

    name: str
    kind: str
    labels: tuple[str, ...]


def made() -> set[Metric]:
    """Every metric that the services make, read from their code."""
    files = sorted((ROOT / "services").rglob("*.py"))
    return {metric for file in files for metric in _made_in(ast.parse(file.read_text()))}


def _made_in(tree: ast.AST) -> Iterator[Metric]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        maker = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        maker = node.func.id if isinstance(node.func, ast.Name) else maker
        first = node.args[0]
        if maker in _MAKERS and isinstance(first, ast.Constant):
            yield Metric(str(first.value), _MAKERS[maker], _labels(node))


def _labels(call: ast.Call) -> tuple[str, ...]:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    labels = given.get("labels", call.args[2] if len(call.args) > 2 else None)
    return tuple(ast.literal_eval(labels)) if labels is not None else ()


def documented() -> set[Metric]:
    """Every metric that the page lists."""
    return {
        Metric(name, kind, tuple(filter(None, (each.strip() for each in labels.split(",")))))
        for name, kind, labels in _ROW.findall(DOCUMENT.read_text())
    }


def readable() -> set[str]:
    """Every name that a query may read: of ours, of others that the page names, and recorded."""
    names = set(_CLIENTS) | set(re.findall(r"`((?:cnpg|kube)_\w+)`", DOCUMENT.read_text()))
    for metric in made():
        suffixes = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def read_by(query: str) -> set[str]:
    """The names of the metrics that a PromQL query reads."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\w)\s*(\(?)", bare)
    return {name for name, call in found if not call and name.lower() not in _WORDS}
