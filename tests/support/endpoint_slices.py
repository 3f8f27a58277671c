"""A double of the Kubernetes API server for EndpointSlices, over real HTTP: list and watch.

It keeps versions as the real one does: a watch goes on from where its client left off, and one that
asks for a version that was forgotten gets 410.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = "/apis/discovery.k8s.io/v1/namespaces/mesh/endpointslices"
_TICK_S = 0.05


def endpoint_slice(
    name: str, *ready: str, away: Sequence[str] = (), port: int = 7413, labels: str = "models"
) -> dict[str, Any]:
    """A slice with endpoints that are ready and others that are not."""
    endpoints = [{"addresses": [host], "conditions": {"ready": True}} for host in ready]
    endpoints += [{"addresses": [host], "conditions": {"ready": False}} for host in away]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "mesh", "labels": {"component": labels}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "grpc-mesh", "port": port, "protocol": "TCP"}],
    }


class ApiServer:
    """What the server holds, and what it was asked; it can be stopped and started again.

    It refuses the next `refuse` requests, or each watch while `refuse_watches`; while `brief` a
    watch ends at once, without an error. `told` counts the events of its watches.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slices: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._version = 100
        self._forgotten = 0
        self._server: ThreadingHTTPServer | None = None
        self._closing = False
        self._generation = 0
        self.port = 0
        self.lists = 0
        self.watched_from: list[int] = []
        self.told = 0
        self.refuse = 0
        self.refuse_watches = False
        self.brief = False

    def put(self, item: Mapping[str, Any]) -> None:
        """Make a slice, or replace the one of its name."""
        name = item["metadata"]["name"]
        self._event("MODIFIED" if name in self._slices else "ADDED", dict(item))

    def delete(self, name: str) -> None:
        """Remove a slice."""
        self._event("DELETED", self._slices[name])

    def _event(self, kind: str, item: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
            if kind == "DELETED":
                self._slices.pop(item["metadata"]["name"])
            else:
                self._slices[item["metadata"]["name"]] = item
            self._events.append((self._version, kind, item))
            self._changed.notify_all()

    def forget(self) -> None:
        """Compact the history: who watches from before now is told to list again."""
        with self._changed:
            self._version += 1
            self._forgotten = self._version
            self._events.clear()

    def end_watches(self) -> None:
        """End the watches under way in order, as the real one does after a while."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._closing = False
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(_TICK_S,), daemon=True).start()

    def stop(self) -> None:
        """End every watch and listen no more."""
        with self._changed:
            self._closing = True
            # A watch that looks up only after the next start was one of before all the same.
            self._generation += 1
            self._changed.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def serve(self, call: BaseHTTPRequestHandler) -> None:
        """Answer a request; a stopped server says nothing on connections that it had either."""
        generation = self._generation
        if self._closing:
            call.close_connection = True
            return
        where = urlsplit(call.path)
        asked = {name: values[-1] for name, values in parse_qs(where.query).items()}
        selected = asked.get("labelSelector", "").partition("=")[2]
        if where.path != PATH:
            _answer(call, 404, _status(404, "NotFound"))
        elif self.refuse:
            self.refuse -= 1
            _answer(call, 503, _status(503, "ServiceUnavailable"))
        elif asked.get("watch", "").lower() != "true":
            self._list(call, selected)
        elif self.refuse_watches:
            _answer(call, 503, _status(503, "ServiceUnavailable"))
        else:
            self._watch(call, int(asked["resourceVersion"]), selected, generation)

    def _list(self, call: BaseHTTPRequestHandler, selected: str) -> None:
        with self._changed:
            self.lists += 1
            items = [item for item in self._slices.values() if _has(item, selected)]
            found = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSliceList",
                "metadata": {"resourceVersion": str(self._version)},
                "items": items,
            }
        _answer(call, 200, found)

    def _watch(
        self, call: BaseHTTPRequestHandler, version: int, selected: str, generation: int
    ) -> None:
        self.watched_from.append(version)
        call.send_response(200)
        call.send_header("Content-Type", "application/json")
        call.send_header("Transfer-Encoding", "chunked")
        call.end_headers()
        if version < self._forgotten:
            _write(call, {"type": "ERROR", "object": _status(410, "Expired")})
        elif not self.brief:
            self._follow(call, version, selected, generation)
        _chunk(call, b"")

    def _follow(
        self, call: BaseHTTPRequestHandler, version: int, selected: str, generation: int
    ) -> None:
        while not self._closing and generation == self._generation:
            with self._changed:
                fresh = [event for event in self._events if event[0] > version]
                if not fresh:
                    self._changed.wait(_TICK_S)
                    continue
            version = fresh[-1][0]
            for _, kind, item in fresh:
                if _has(item, selected):
                    _write(call, {"type": kind, "object": item})
                    self.told += 1


def _has(item: Mapping[str, Any], selected: str) -> bool:
    return not selected or item["metadata"]["labels"]["component"] == selected


def _status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": reason}


def _answer(call: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    data = json.dumps(body).encode()
    call.send_response(status)
    call.send_header("Content-Type", "application/json")
    call.send_header("Content-Length", str(len(data)))
    call.end_headers()
    call.wfile.write(data)


def _write(call: BaseHTTPRequestHandler, event: Any) -> None:
    _chunk(call, json.dumps(event).encode() + b"\n")


def _chunk(call: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send a chunk; an empty one is the end."""
    call.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    call.wfile.flush()


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A running API server."""
    server = ApiServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
