"""A Jaeger: one that settings name, or one of our own from its binary.

`ECHOMESH_JAEGER_OTLP` and `ECHOMESH_JAEGER_QUERY` are the addresses of any Jaeger (as
http://host:4317 and http://host:16686). Without them `ECHOMESH_JAEGER_BINARY`, a file, is started
with everything in memory.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.mesh import until
from tests.support.otlp import SeenSpan, short_name

START_S = 60.0
_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Jaeger:
    """Where a Jaeger takes spans, and its query API."""

    otlp: str
    query: str

    def get(self, path: str, **parameters: str) -> list[Any]:
        """The `data` of an answer of the query API; nothing if there is none."""
        url = f"{self.query}/api/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a Jaeger
                return json.load(answer)["data"] or []
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """The spans of a trace that Jaeger has."""
        found = self.get(f"traces/{trace_id}")
        return [_span(span, found[0]["processes"]) for span in found[0]["spans"]] if found else []

    def search(
        self, service: str, operation: str, tags: Mapping[str, str], start_s: float, end_s: float
    ) -> set[str]:
        """The ids of traces as its search page finds them; times since the epoch."""
        found = self.get(
            "traces",
            service=service,
            operation=operation,
            tags=json.dumps(tags),
            start=str(round(start_s * _MICROSECONDS)),
            end=str(round(end_s * _MICROSECONDS)),
        )
        return {trace["traceID"] for trace in found}

    def edges(self, trace_id: str) -> set[tuple[str, str]]:
        """(parent, child) as "service kind Name/Method" within a trace."""
        spans = {span.span_id: span for span in self.trace(trace_id)}
        return {(spans[s.parent_id].label, s.label) for s in spans.values() if s.parent_id in spans}


def jaeger_config(*, otlp: str, query: str, query_grpc: str) -> str:
    """The configuration (YAML) of a Jaeger in memory that listens at these (each host:port)."""
    return f"""
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}}
  telemetry: {{logs: {{level: warn}}, metrics: {{level: none}}}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "{query}"}}
    grpc: {{endpoint: "{query_grpc}"}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{otlp}"}}}}}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: memory}}}}
"""


def _span(span: Mapping[str, Any], processes: Mapping[str, Any]) -> SeenSpan:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    references: Sequence[Mapping[str, str]] = span.get("references") or ()
    parents = [r["spanID"] for r in references if r["refType"] == "CHILD_OF"]
    return SeenSpan(
        service=processes[span["processID"]]["serviceName"],
        name=short_name(span["operationName"]),
        kind=tags.get("span.kind", "internal"),
        trace_id=span["traceID"],
        span_id=span["spanID"],
        parent_id=parents[0] if parents else "",
        error=tags.get("otel.status_description", "error") if tags.get("error") else "",
        attributes=tags,
        events=[
            (fields.get("event", ""), fields)
            for log in span.get("logs") or ()
            for fields in [{field["key"]: field["value"] for field in log["fields"]}]
        ],
        links=[(r["traceID"], r["spanID"]) for r in references if r["refType"] != "CHILD_OF"],
    )


def binary() -> Path | None:
    """Jaeger's own binary, if a setting names one."""
    path = os.environ.get("ECHOMESH_JAEGER_BINARY")
    return Path(path) if path else None


def named() -> Jaeger | None:
    """The Jaeger that settings name, if they do."""
    otlp = os.environ.get("ECHOMESH_JAEGER_OTLP")
    query = os.environ.get("ECHOMESH_JAEGER_QUERY")
    return Jaeger(otlp, query.rstrip("/")) if otlp and query else None


@contextmanager
def running_jaeger(program: Path, folder: Path) -> Iterator[Jaeger]:
    """A Jaeger of our own, everything in memory."""
    otlp, query, query_grpc = free_ports(3)
    config = folder / "jaeger.yaml"
    at = "127.0.0.1:{}".format
    config.write_text(jaeger_config(otlp=at(otlp), query=at(query), query_grpc=at(query_grpc)))
    jaeger = Jaeger(f"http://127.0.0.1:{otlp}", f"http://127.0.0.1:{query}")
    with running(program, config, folder / "jaeger.log", {}):
        until(lambda: _answers(jaeger) and accepts(otlp), START_S, "Jaeger's start")
        yield jaeger


@contextmanager
def running(
    program: Path, config: Path, log: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The binary with a configuration, ended at the end."""
    command = [str(program), "--config", f"file:{config}"]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def accepts(port: int) -> bool:
    """Whether something on this machine takes connections on a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _answers(jaeger: Jaeger) -> bool:
    try:
        jaeger.get("services")
    except OSError:
        return False
    return True
