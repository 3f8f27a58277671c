"""How a client reaches a mesh that is somewhere else: by forwarded ports, with TLS or without."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import echomesh
from echomesh import _session
from tests.unit.sdk.test_sdk_client import FakeMesh, mesh

__all__ = ["mesh"]


async def test_the_services_of_a_forwarded_mesh_are_found_at_the_forwarding_host(
    mesh: FakeMesh,
) -> None:
    here = mesh.address
    mesh.address = f"auth.mesh.invalid:{here.rpartition(':')[2]}"
    async with echomesh.Client(here, api_key="k", forwarded=True) as client:
        assert set((await client.endpoints()).values()) == {mesh.address}
        result = await client.recall("q")
        assert [hit.memory.text for hit in result.hits] == ["q"]


@pytest.mark.parametrize(
    ("address", "tls", "secure"),
    [
        ("mesh.example.com:443", None, True),
        ("127.0.0.1:7400", None, False),
        ("routing.mesh.svc:7400", False, False),
        ("127.0.0.1:7400", True, True),
    ],
)
async def test_tls_is_used_unless_the_address_is_loopback_or_as_the_client_is_told(
    monkeypatch: pytest.MonkeyPatch, address: str, tls: bool | None, secure: bool
) -> None:
    made: list[bool] = []
    real = grpc.aio.insecure_channel

    def insecure(target: str, **options: Any) -> grpc.aio.Channel:
        made.append(False)
        return real(target, **options)

    def secured(target: str, _: grpc.ChannelCredentials, **options: Any) -> grpc.aio.Channel:
        made.append(True)
        return real(target, **options)

    monkeypatch.setattr(_session.grpc.aio, "insecure_channel", insecure)
    monkeypatch.setattr(_session.grpc.aio, "secure_channel", secured)
    transport = _session.Transport(address, None, tls=tls)
    channel = transport._connect(address)
    await channel.close()
    assert made == [secure]


async def test_a_client_that_is_told_where_the_services_are_does_not_ask_elsewhere(
    mesh: FakeMesh,
) -> None:
    """What the mesh says, such as its public host, may lead nowhere from inside a cluster."""
    here = mesh.address
    mesh.address = "mesh.invalid:443"
    endpoints = dict.fromkeys(("auth", "memory", "routing"), here)
    async with echomesh.Client(here, api_key="k", endpoints=endpoints) as client:
        result = await client.recall("q")
        assert [hit.memory.text for hit in result.hits] == ["q"]


async def test_a_certificate_may_name_another_host_than_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    real = grpc.aio.insecure_channel

    def secured(target: str, _: grpc.ChannelCredentials, options: Any) -> grpc.aio.Channel:
        given.extend(options)
        return real(target)

    monkeypatch.setattr(_session.grpc.aio, "secure_channel", secured)
    transport = _session.Transport("auth.mesh.svc:7401", None, server_name="mesh.example.com")
    await transport._connect("auth.mesh.svc:7401").close()
    assert ("grpc.ssl_target_name_override", "mesh.example.com") in given
