"""`echomesh doctor --address`: the certificate, forwarded ports, services behind one address."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from echomesh.routing.v1 import routing_pb2
from services.cli.connect import KEY_VARIABLE, Place
from services.cli.doctor_remote import LOW_DAYS, _reached, check_certificate, examine_remote


def self_signed(folder: Path, days: int) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, with its key, in one PEM file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = folder / "both.pem"
    file.write_bytes(pem + secret)
    return file


@contextmanager
def speaking_tls(both: Path) -> Iterator[str]:
    """The address of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                plain, _ = server.accept()
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                return  # a client that does not trust it, or the end of the test

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def authority(both: Path) -> bytes:
    return both.read_bytes().partition(b"-----BEGIN PRIVATE KEY")[0]


@pytest.mark.parametrize(("days", "well"), [(90, True), (LOW_DAYS - 1, False)])
def test_the_days_that_are_left_are_told(tmp_path: Path, days: int, well: bool) -> None:
    both = self_signed(tmp_path, days)
    with speaking_tls(both) as address:
        found = check_certificate(address, authority(both))
    assert (found.ok, found.detail) == (well, f"{days} days left")


def test_one_that_nobody_vouches_for_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with speaking_tls(self_signed(tmp_path, 90)) as address:
        found = check_certificate(address, None)
    assert not found.ok
    assert "self-signed" in found.detail
    assert "--ca" in found.advice


def test_an_address_where_nobody_is_is_named() -> None:
    found = check_certificate("127.0.0.1:1", None)
    assert (found.ok, found.detail.startswith("127.0.0.1:1: ")) == (False, True)


def test_through_forwarded_ports_every_listener_is_at_the_given_host() -> None:
    """As `kubectl port-forward` has it; elsewhere the mesh's own addresses count."""
    inside = "echomesh-memory.mesh.svc.cluster.local:7402"
    assert _reached(inside, "127.0.0.1:7400") == "127.0.0.1:7402"
    assert _reached("memory.example:443", "chat.example:443") == "memory.example:443"


GRPC_SERVICES = {
    "auth": "echomesh.auth.v1.AuthService",
    "memory": "echomesh.memory.v1.MemoryService",
    "routing": "echomesh.routing.v1.ChatService",
}


class Gateway(grpc.GenericRpcHandler):
    """One address that leads to the services of `led` and answers for no other, nor for health."""

    def __init__(self, led: Collection[str]) -> None:
        self.port = 0
        self._led = led

    def service(self, details: Any) -> Any:
        if details.method == "/echomesh.routing.v1.MeshService/GetEndpoints":
            return grpc.unary_unary_rpc_method_handler(self._endpoints)
        name = details.method.split(".")[1]
        return grpc.unary_unary_rpc_method_handler(_refuse) if name in self._led else None

    async def _endpoints(self, _: bytes, context: Any) -> bytes:
        named = [
            routing_pb2.Endpoint(service=service, address=f"127.0.0.1:{self.port}")
            for service in GRPC_SERVICES.values()
        ]
        return routing_pb2.GetEndpointsResponse(endpoints=named).SerializeToString()


async def _refuse(_: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
    raise AssertionError("unreachable")


@pytest.mark.parametrize("away", [None, "auth", "memory"])
async def test_each_service_behind_one_public_address_is_told_of(
    monkeypatch: pytest.MonkeyPatch, away: str | None
) -> None:
    """A gateway leads the services' own calls alone: health is not asked there."""
    monkeypatch.setenv(KEY_VARIABLE, "k")
    gateway = Gateway(set(GRPC_SERVICES) - {away})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((gateway,))
    gateway.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    place = Place(address=f"127.0.0.1:{gateway.port}")
    found = {finding.part: finding.ok async for finding in examine_remote(place)}
    await server.stop(0)
    expected = {service: service != away for service in GRPC_SERVICES}
    assert found == {"address": True, **expected}
