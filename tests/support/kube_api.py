"""The few answers of a Kubernetes API server that the set-up jobs need, over real HTTP."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "a-token"


class KubeApi:
    """One namespace's Secrets, by name.

    `race` changes one between a read and a write; with `lose_answer` the next write is done and
    said to have failed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.version = 1
        self.race: dict[str, bytes] = {}
        self.lose_answer = False

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """What is said to a request."""
        name = path.rpartition("/")[2]
        if not path.startswith("/api/v1/namespaces/mesh/secrets/") or name not in self.secrets:
            return 404, {}
        if method == "PATCH":
            if self.race:
                self.secrets[name].update(self.race)
                self.race = {}
                self.version += 1
            if body["metadata"]["resourceVersion"] != str(self.version):
                return 409, {}
            given = {key: base64.b64decode(value) for key, value in body["data"].items()}
            self.secrets[name].update(given)
            self.version += 1
            if self.lose_answer:
                self.lose_answer = False
                return 504, {}
        data = {key: base64.b64encode(value).decode() for key, value in self.secrets[name].items()}
        return 200, {"metadata": {"resourceVersion": str(self.version)}, "data": data or None}


@contextmanager
def kube_api(folder: Path) -> Iterator[KubeApi]:
    """An API server, and in `folder` what Kubernetes puts into a pod to reach it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve("GET", None)

        def do_PATCH(self) -> None:
            length = int(self.headers["content-length"])
            self._serve("PATCH", json.loads(self.rfile.read(length)))

        def _serve(self, method: str, body: Any) -> None:
            allowed = self.headers["authorization"] == f"Bearer {TOKEN}"
            status, answer = api.answer(method, self.path, body) if allowed else (403, {})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = KubeApi(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("mesh")
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
