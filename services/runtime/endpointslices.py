"""Where the instances of a service are, learned from Kubernetes' EndpointSlices.

A list tells all there are, a watch what changes after it, from where the list (or the last event)
left off. Whatever goes wrong with the API server, what was learned last stays in force: it is asked
again, ever more slowly until a watch lasts or tells something, and listed anew after a failure.
The official client is synchronous, so all this runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger

# The API server ends a watch after this; a connection that is silent for longer is dead.
WATCH_S = 60
_SILENCE_S = 75.0
_CONNECT_S = 5.0
_LIST_S = 10.0
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
# A watch that is silent and over sooner counts as failed, also if no error was said.
_LASTING_S = 10.0
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT_NAMESPACE = "default"

Changed = Callable[[frozenset[str]], None]
"""Is told all addresses (host:port) each time they change; on the event loop."""


@dataclass(frozen=True)
class Selection:
    """Which EndpointSlices count: those of a namespace with a label selector, by their port's name.

    `port` may be empty where slices have one port.
    """

    namespace: str
    selector: str
    port: str = ""


def addresses_of(slices: Iterable[Mapping[str, Any]], port: str) -> frozenset[str]:
    """The addresses of endpoints that are ready, from EndpointSlices as the API gives them.

    An endpoint without conditions counts as ready, as Kubernetes has it; one that ends does not.
    """
    return frozenset(
        _address(host, each["port"], str(entry.get("addressType", "")))
        for entry in slices
        for each in entry.get("ports") or ()
        if each.get("port") and (not port or each.get("name") == port)
        for endpoint in entry.get("endpoints") or ()
        if _ready(endpoint.get("conditions") or {})
        for host in endpoint["addresses"]
    )


def _ready(conditions: Mapping[str, Any]) -> bool:
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _address(host: str, port: int, kind: str) -> str:
    return f"[{host}]:{port}" if kind == "IPv6" else f"{host}:{port}"


class EndpointSlices:
    """Follows EndpointSlices and tells `changed`; start it on the loop that `changed` runs on."""

    def __init__(self, selection: Selection, changed: Changed, api: Any) -> None:
        """`api` is a `kubernetes.client.DiscoveryV1Api`, as `discovery_api` makes it."""
        self._selection = selection
        self._changed = changed
        self._api = api
        self._slices: dict[str, Mapping[str, Any]] = {}
        self._told: frozenset[str] | None = None
        self._stopping = threading.Event()
        self._pause_s = FIRST_PAUSE_S
        self._sound = False

    def start(self) -> Callable[[], None]:
        """Follow on a thread; returns what ends that."""
        loop = asyncio.get_running_loop()
        run = threading.Thread(target=self._run, args=(loop,), name="endpointslices", daemon=True)
        run.start()
        return self._stopping.set

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping.is_set():
            try:
                version = self._list(loop)
                while not self._stopping.is_set():
                    version = self._watch(loop, version)
                    if not self._sound:
                        self._rest()
            except Exception as error:  # of whatever kind: what is known stays in force
                get_logger().warning(
                    "discovery_waits", error=type(error).__name__, status=_status(error)
                )
                self._rest()

    def _rest(self) -> None:
        self._stopping.wait(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2)

    def _list(self, loop: asyncio.AbstractEventLoop) -> str:
        """Learn all slices anew; return the version from which to watch."""
        found = self._api.list_namespaced_endpoint_slice(
            self._selection.namespace,
            label_selector=self._selection.selector,
            _request_timeout=(_CONNECT_S, _LIST_S),
        )
        plain = self._plain(found)
        self._slices = {item["metadata"]["name"]: item for item in plain.get("items") or ()}
        self._tell(loop)
        return str(plain["metadata"]["resourceVersion"])

    def _watch(self, loop: asyncio.AbstractEventLoop, version: str) -> str:
        """Watch once; return where it left off. One that is sound ends the growth of pauses."""
        began = time.monotonic()
        self._sound = False
        try:
            return self._follow(loop, version)
        finally:
            self._sound = self._sound or time.monotonic() - began >= _LASTING_S
            if self._sound:
                self._pause_s = FIRST_PAUSE_S

    def _follow(self, loop: asyncio.AbstractEventLoop, version: str) -> str:
        """Take changes until the server ends the watch; return where it left off."""
        # Imported where it is used: the client takes a second and tens of megabytes.
        from kubernetes import watch

        follow: Any = watch.Watch()  # type: ignore[no-untyped-call]
        for event in follow.stream(
            self._api.list_namespaced_endpoint_slice,
            self._selection.namespace,
            label_selector=self._selection.selector,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
            _request_timeout=(_CONNECT_S, _SILENCE_S),
        ):
            if self._stopping.is_set():
                break
            self._sound = True
            self._take(event["type"], event["raw_object"])
            self._tell(loop)
        return str(follow.resource_version or version)

    def _take(self, kind: str, item: Mapping[str, Any]) -> None:
        name = item["metadata"].get("name", "")
        if kind in {"ADDED", "MODIFIED"}:
            self._slices[name] = item
        elif kind == "DELETED":
            self._slices.pop(name, None)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        addresses = addresses_of(self._slices.values(), self._selection.port)
        if addresses != self._told and not self._stopping.is_set():
            self._told = addresses
            loop.call_soon_threadsafe(self._changed, addresses)

    def _plain(self, found: Any) -> Any:
        """An object of the client as the API gave it, with the API's own names."""
        return self._api.api_client.sanitize_for_serialization(found)


def _status(error: Exception) -> int:
    """The HTTP status of an answer that was no success; 0 for anything else."""
    return int(getattr(error, "status", 0) or 0)


def discovery_api() -> Any:
    """The API of the cluster that this pod is in, else of the one that KUBECONFIG names.

    Raises AppError in one line.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        text = "the Kubernetes client is not installed: add the extra `routing`"
        raise AppError(Reason.INTERNAL, text) from error
    try:
        config.load_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise AppError(Reason.INTERNAL, f"no Kubernetes API is at hand: {error}") from error
    return api_of(client.Configuration.get_default_copy())


def api_of(configuration: Any) -> Any:
    """The API that a `kubernetes.client.Configuration` leads to; tries are counted here alone."""
    from kubernetes import client

    configuration.retries = False
    return client.DiscoveryV1Api(client.ApiClient(configuration))


def own_namespace() -> str:
    """The namespace of this pod; `default` outside of a cluster."""
    try:
        return _NAMESPACE.read_text().strip() or _DEFAULT_NAMESPACE
    except OSError:
        return _DEFAULT_NAMESPACE
