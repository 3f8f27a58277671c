"""Instances learned from EndpointSlices: the official client against an API server over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kubernetes import client

from services.routing import discovery
from services.routing.config import RoutingSettings
from services.routing.instances import ModelInstances
from services.runtime import endpointslices
from services.runtime.channel import ChannelFactory
from services.runtime.clock import SystemClock
from services.runtime.endpointslices import EndpointSlices, Selection, addresses_of, api_of
from services.runtime.tokens import AssertionSigner
from tests.support.endpoint_slices import ApiServer, api_server, endpoint_slice
from tests.support.waiting import until

SELECTION = Selection("mesh", "component=models", "grpc-mesh")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for between tries is not what is tested here."""
    monkeypatch.setattr(endpointslices, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(endpointslices, "MAX_PAUSE_S", 0.2)


class Seen:
    """What was told, newest last."""

    def __init__(self, server: ApiServer) -> None:
        self.told: list[frozenset[str]] = []
        api = api_of(client.Configuration(host=f"http://127.0.0.1:{server.port}"))
        self.stop: Callable[[], None] = EndpointSlices(SELECTION, self.told.append, api).start()

    async def becomes(self, *addresses: str) -> None:
        """Wait until these are all the instances."""

        async def same() -> bool:
            return bool(self.told) and self.told[-1] == set(addresses)

        await until(same, f"{addresses} are known")


@pytest.fixture
async def seen(server: ApiServer) -> AsyncIterator[Seen]:
    server.put(endpoint_slice("a", "10.0.0.1", "10.0.0.2"))
    server.put(endpoint_slice("others", "10.9.9.9", labels="routing"))
    found = Seen(server)
    await found.becomes("10.0.0.1:7413", "10.0.0.2:7413")
    yield found
    found.stop()


async def test_changes_are_told_as_they_come(server: ApiServer, seen: Seen) -> None:
    """Another slice, an endpoint that is not ready any more, a slice that is gone."""
    server.put(endpoint_slice("b", "10.0.0.3", port=8000))
    await seen.becomes("10.0.0.1:7413", "10.0.0.2:7413", "10.0.0.3:8000")
    server.put(endpoint_slice("a", "10.0.0.1", away=["10.0.0.2"]))
    await seen.becomes("10.0.0.1:7413", "10.0.0.3:8000")
    server.delete("a")
    await seen.becomes("10.0.0.3:8000")
    assert server.lists == 1


async def test_an_api_server_that_is_away_changes_nothing_and_is_followed_again_when_it_returns(
    server: ApiServer, seen: Seen
) -> None:
    known = list(seen.told)
    server.stop()
    server.put(endpoint_slice("b", "10.0.0.3"))
    await asyncio.to_thread(server.start)
    await seen.becomes("10.0.0.1:7413", "10.0.0.2:7413", "10.0.0.3:7413")
    assert seen.told[: len(known)] == known
    assert frozenset() not in seen.told


async def test_a_server_that_refuses_is_asked_again(server: ApiServer, seen: Seen) -> None:
    server.refuse = 3
    server.stop()
    server.start()
    server.put(endpoint_slice("b", "10.0.0.3"))
    await seen.becomes("10.0.0.1:7413", "10.0.0.2:7413", "10.0.0.3:7413")
    assert server.refuse == 0


async def test_a_watch_goes_on_from_where_the_last_one_left_off(
    server: ApiServer, seen: Seen
) -> None:
    """What ends a watch in order is no reason to list again."""
    server.put(endpoint_slice("b", "10.0.0.3"))
    await seen.becomes("10.0.0.1:7413", "10.0.0.2:7413", "10.0.0.3:7413")
    lists, first = server.lists, server.watched_from[-1]
    server.end_watches()

    async def watched_again() -> bool:
        return len(server.watched_from) > 1

    await until(watched_again, "another watch")
    assert server.watched_from[-1] > first
    assert server.lists == lists
    server.delete("b")
    await seen.becomes("10.0.0.1:7413", "10.0.0.2:7413")


async def test_a_server_that_has_forgotten_the_place_is_listed_anew(
    server: ApiServer, seen: Seen
) -> None:
    """Also what went meanwhile is gone then."""
    server.stop()
    server.delete("a")
    server.put(endpoint_slice("c", "10.0.0.7"))
    server.forget()
    await asyncio.to_thread(server.start)
    await seen.becomes("10.0.0.7:7413")


class Pauses(threading.Event):
    """What is waited for between tries, noted instead of waited for, while nothing stops it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return super().wait(0.001)


@pytest.mark.parametrize("trouble", ["refuse_watches", "brief"])
async def test_a_watch_that_does_not_last_is_asked_for_ever_more_slowly_until_one_tells_something(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """That a list succeeds in between proves nothing: it is the watch that fails."""
    pauses = Pauses()
    monkeypatch.setattr(endpointslices, "MAX_PAUSE_S", 1e9)
    api = api_of(client.Configuration(host=f"http://127.0.0.1:{server.port}"))
    slices = EndpointSlices(SELECTION, lambda _: None, api)
    slices._stopping = pauses
    setattr(server, trouble, True)
    stop = slices.start()

    async def grown() -> bool:
        return max(pauses.seconds, default=0.0) > 20 * endpointslices.FIRST_PAUSE_S

    async def told() -> bool:
        server.put(endpoint_slice("b", "10.0.0.2"))
        return server.told > 0

    async def begun_anew() -> bool:
        return any(s <= endpointslices.FIRST_PAUSE_S for s in pauses.seconds[tries:])

    try:
        await until(grown, "longer pauses")
        tries = len(pauses.seconds)
        setattr(server, trouble, False)
        await until(told, "an event")
        setattr(server, trouble, True)
        server.end_watches()
        await until(begun_anew, "short pauses again")
    finally:
        stop()


async def test_until_the_first_list_has_come_models_are_looked_for_at_their_target(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A routing that starts while the API server is away knows models nevertheless."""
    server.put(endpoint_slice("a", "10.0.0.1"))
    server.stop()
    api = api_of(client.Configuration(host=f"http://127.0.0.1:{server.port}"))
    monkeypatch.setattr(discovery, "discovery_api", lambda: api)
    monkeypatch.setattr(discovery, "own_namespace", lambda: "mesh")
    settings = RoutingSettings(
        data_dir=tmp_path,
        models_instances="kubernetes:component=models",
        models_target="dns:///models:7413",
    )
    signer = AssertionSigner("routing", Ed25519PrivateKey.generate(), SystemClock())
    channels = ChannelFactory(settings, signer)
    async with AsyncExitStack() as stack:
        found, _ = await discovery.find_models(settings, channels, stack)
        assert isinstance(found, ModelInstances)
        assert found.addresses == ["dns:///models:7413"]
        await asyncio.to_thread(server.start)

        async def learned() -> bool:
            return found.addresses == ["10.0.0.1:7413"]

        await until(learned, "what the API server tells")


def test_only_endpoints_that_are_ready_and_stay_count() -> None:
    item = endpoint_slice("a", "10.0.0.1", away=["10.0.0.2"])
    item["endpoints"].append({"addresses": ["10.0.0.3"]})
    item["endpoints"].append(
        {"addresses": ["10.0.0.4"], "conditions": {"ready": True, "terminating": True}}
    )
    item["ports"].append({"name": "metrics", "port": 9})
    assert addresses_of([item], "grpc-mesh") == {"10.0.0.1:7413", "10.0.0.3:7413"}
    six = {**item, "addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]}
    assert addresses_of([six], "grpc-mesh") == {"[fd00::1]:7413"}
    assert addresses_of([{"addressType": "IPv4"}], "grpc-mesh") == set()
