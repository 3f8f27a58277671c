"""A Secret of Kubernetes, read and added to by the pod's own service account.

Only what a set-up job needs of the API, over the standard library.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.runtime.errors import AppError, Reason

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's token, its namespace, and the API server's authority."""

_TIMEOUT_S = 10.0
_CONFLICT = 409


class Conflict(Exception):
    """Somebody else changed the Secret since it was read."""


class Secret:
    """One existing Secret in the pod's namespace."""

    def __init__(self, name: str, account: Path = ACCOUNT, url: str | None = None) -> None:
        """Name the Secret; `url` is the API server's, else the one Kubernetes tells pods."""
        self._account = account
        server = url or f"https://{_host()}"
        namespace = self._file("namespace")
        self._name = name
        self._url = f"{server}/api/v1/namespaces/{namespace}/secrets/{name}"
        self._version = ""

    def read(self) -> dict[str, bytes]:
        """Return what the Secret holds; raises AppError with one line."""
        answer = self._call("GET")
        self._version = answer["metadata"]["resourceVersion"]
        return {key: base64.b64decode(value) for key, value in (answer.get("data") or {}).items()}

    def add(self, data: Mapping[str, bytes]) -> None:
        """Set these entries and leave the others; raises Conflict, AppError.

        It must have been read: only a Secret that is still as it was then is changed.
        """
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        answer = self._call(
            "PATCH", {"metadata": {"resourceVersion": self._version}, "data": encoded}
        )
        self._version = answer["metadata"]["resourceVersion"]

    def _call(self, method: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the API server's own address
            self._url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                # Read each time: Kubernetes replaces the token before it expires.
                "authorization": f"Bearer {self._file('token')}",
                "content-type": "application/merge-patch+json",
            },
        )
        try:
            with urllib.request.urlopen(  # noqa: S310 - as above
                request, timeout=_TIMEOUT_S, context=self._authority()
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == _CONFLICT:
                raise Conflict from None
            raise self._unusable(f"{error.code} {error.reason}") from None
        except OSError as error:
            raise self._unusable(str(error)) from None

    def _authority(self) -> ssl.SSLContext | None:
        if not self._url.startswith("https:"):
            return None
        return ssl.create_default_context(cafile=str(self._account / "ca.crt"))

    def _file(self, name: str) -> str:
        try:
            return (self._account / name).read_text("ascii").strip()
        except OSError as error:
            why = f"this is no pod with a service account ({error.filename} is missing)"
            raise AppError(Reason.INTERNAL, why) from None

    def _unusable(self, why: str) -> AppError:
        return AppError(Reason.INTERNAL, f"the Secret {self._name} cannot be used: {why}")


def _host() -> str:
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
