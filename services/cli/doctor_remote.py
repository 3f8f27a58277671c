"""`echomesh doctor --address`: a mesh elsewhere, as far as its public listeners tell.

Each is asked by a call of its own service, for a gateway leads those alone and not health checks.
The services behind them are not reached from outside. That they work is shown by the rounds
through all of them, which `doctor` makes next; what each one reaches is a metric
(echomesh_dependency_reached).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import grpc

from echomesh.routing.v1 import routing_pb2, routing_pb2_grpc
from services.cli.connect import Place
from services.cli.files import CommandError
from services.cli.findings import Finding
from services.runtime.tls import is_loopback

# A certificate is renewed long before; see docs/runbooks/certificate-expiry.md.
LOW_DAYS = 14
_TIMEOUT_S = 5.0
# A call of each service that an empty request suits and that changes nothing. It is made without a
# key: a refusal comes from the service itself, too.
_QUESTIONS = {
    "auth": "/echomesh.auth.v1.AuthService/GetJwks",
    "memory": "/echomesh.memory.v1.MemoryService/GetIndexStatus",
    "routing": "/echomesh.routing.v1.MeshService/GetEndpoints",
}
_ANSWERS = frozenset((grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED))


async def examine_remote(place: Place) -> AsyncIterator[Finding]:
    """Look at the address, its certificate, and every public listener that it names."""
    try:
        roots = place.roots()
        place.client()
    except CommandError as error:
        yield Finding("key", False, str(error), "see `echomesh doctor --help`")
        return
    tls = not is_loopback(place.address)
    if tls:
        yield check_certificate(place.address, roots)
    try:
        async with _channel(place.address, roots, tls=tls) as channel:
            endpoints = await _endpoints(channel)
    except grpc.aio.AioRpcError as error:
        detail = f"{place.address}: {error.code().name.lower()}"
        yield Finding("address", False, detail, "is it routing's public address, and reachable?")
        return
    yield Finding("address", True, f"{place.address}, version {endpoints.version}")
    for service, address, speaks_tls in _listeners(endpoints):
        where = _reached(address, place.address)
        yield await _check_listener(service, where, roots, tls=tls and speaks_tls)


async def _endpoints(channel: grpc.aio.Channel) -> routing_pb2.GetEndpointsResponse:
    stub: routing_pb2_grpc.MeshServiceAsyncStub = routing_pb2_grpc.MeshServiceStub(channel)
    return await stub.GetEndpoints(routing_pb2.GetEndpointsRequest(), timeout=_TIMEOUT_S)


def _listeners(endpoints: routing_pb2.GetEndpointsResponse) -> Iterable[tuple[str, str, bool]]:
    """Each service (echomesh.SERVICE.v1...) at each of its addresses, and whether that is TLS.

    Several may share an address: that of what leads to them all.
    """
    return dict.fromkeys(
        (endpoint.service.split(".")[1], address, endpoint.tls)
        for endpoint in endpoints.endpoints
        if endpoint.service.split(".")[1] in _QUESTIONS
        for address in endpoint.address.split(",")
    )


def _reached(address: str, given: str) -> str:
    """Where a listener is from here: at a given loopback address ports are forwarded, all alike."""
    if not is_loopback(given):
        return address
    return f"{given.rpartition(':')[0]}:{address.rpartition(':')[2]}"


async def _check_listener(service: str, address: str, roots: bytes | None, *, tls: bool) -> Finding:
    async with _channel(address, roots, tls=tls) as channel:
        code = await _asked(channel, _QUESTIONS[service])
    advice = f"look at {service}: is the address that routing names for it reachable from here?"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        advice = f"does what is in front of the mesh lead {service}'s calls to it?"
    well = code in _ANSWERS
    return Finding(service, well, f"{address}: {'answers' if well else code.name.lower()}", advice)


async def _asked(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """How a call without a key and with an empty request ends."""
    ask: Any = channel.unary_unary(method)
    try:
        await ask(b"", timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _channel(address: str, roots: bytes | None, *, tls: bool) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]
    if not tls:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(roots)
    return grpc.aio.secure_channel(address, credentials, options=options)


def check_certificate(address: str, roots: bytes | None) -> Finding:
    """How long the certificate at an address is good for, and whether it is trusted."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cadata=roots.decode() if roots else None)
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as secure,
        ):
            ends = str((secure.getpeercert() or {}).get("notAfter", ""))
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "no TLS"
        return Finding("certificate", False, f"{address}: {reason}", "name its authority by --ca")
    except (OSError, ValueError) as error:
        return Finding("certificate", False, f"{address}: {error}", "is the address right?")
    left = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) - datetime.now(UTC)
    return Finding("certificate", left.days >= LOW_DAYS, f"{left.days} days left", "renew it")
