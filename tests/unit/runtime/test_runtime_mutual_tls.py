"""Mutual TLS between services: who may connect, as whom, and certificates that change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime import reloading
from services.runtime.certificate_files import KEY, Pem
from services.runtime.certificates import Authority, new_authority, service_certificate
from services.runtime.deadline import deadline_scope
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, acting_as
from services.runtime.tls import PeerPolicy
from tests.support.certified import DAY, Certified, certified, issued, lay, now, shown_certificate
from tests.support.transport import Text, method, registration

PATIENCE_S = 60.0


async def echo(request: Any, context: Any) -> Any:
    return request


class _Everyone:
    """A validator for which a token is the user's name."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        return Identity("tenant-1", token)


async def answered(mesh: Certified, certificate: Pem | None, caller: str = "routing") -> str:
    """What comes of one call with a certificate: "" if it is answered, else the error."""
    async with mesh.calling(certificate, caller) as channel:
        with deadline_scope(PATIENCE_S, extend=True):
            try:
                await method(channel, "Anyone")(Text(value="x"))
            except AppError as error:
                assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
                return error.message
    return ""


UNREACHED = "memory: unavailable"
"""What a caller is told when no connection came to be."""

NOT_ACCEPTED = (
    "memory does not accept this service: their clocks, trust keys or certificates differ"
)


async def test_a_call_goes_through_with_the_callers_own_certificate(tmp_path: Path) -> None:
    async with certified(tmp_path, registration(Anyone=echo)) as mesh:
        assert await answered(mesh, issued(mesh.authority, "routing")) == ""
        assert await answered(mesh, issued(mesh.authority, "embeddings"), "embeddings") == ""


async def test_a_caller_without_tls_or_without_a_certificate_does_not_connect(
    tmp_path: Path,
) -> None:
    """Not even for health, which asks nobody who they are."""
    async with certified(tmp_path, registration(Anyone=echo)) as mesh:
        assert await answered(mesh, None) == UNREACHED
        trusting = grpc.ssl_channel_credentials(mesh.authority.cert_pem)
        named = [("grpc.ssl_target_name_override", "memory.echomesh")]
        bound = mesh.server.mesh_bound
        async with grpc.aio.secure_channel(bound, trusting, options=named) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                check = health_pb2_grpc.HealthStub(channel).Check
                await check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await answered(mesh, issued(mesh.authority, "routing")) == ""


async def test_a_certificate_of_another_authority_is_refused_by_both_sides(tmp_path: Path) -> None:
    other = new_authority(now())
    async with certified(tmp_path, registration(Anyone=echo)) as mesh:
        foreign = issued(other, "routing")
        # It trusts the server, which does not trust it; then the other way round.
        trusting = replace(foreign, authority=mesh.authority.cert_pem)
        assert await answered(mesh, trusting) == UNREACHED
        distrusting = replace(issued(mesh.authority, "routing"), authority=other.cert_pem)
        assert await answered(mesh, distrusting) == UNREACHED
        assert await answered(mesh, issued(mesh.authority, "routing")) == ""


def _expired(authority: Authority, service: str) -> Pem:
    return service_certificate(authority, service, "echomesh", now() - 2 * DAY, DAY)


async def test_an_expired_certificate_is_refused_by_both_sides(tmp_path: Path) -> None:
    authority = new_authority(now() - 3 * DAY)
    good = issued(authority, "routing")
    async with certified(tmp_path, registration(Anyone=echo), authority=authority) as mesh:
        assert await answered(mesh, _expired(authority, "routing")) == UNREACHED
        assert await answered(mesh, good) == ""
    old = _expired(authority, "memory")
    async with certified(
        tmp_path, registration(Anyone=echo), authority=authority, certificate=old
    ) as mesh:
        assert await answered(mesh, good) == UNREACHED


async def test_a_service_cannot_speak_for_another(tmp_path: Path) -> None:
    """Embeddings' certificate beside routing's assertion will not do, nor the other way round."""
    async with certified(tmp_path, registration(Anyone=echo)) as mesh:
        assert await answered(mesh, issued(mesh.authority, "embeddings")) == NOT_ACCEPTED
        assert await answered(mesh, issued(mesh.authority, "routing"), "embeddings") == NOT_ACCEPTED
        assert await answered(mesh, issued(mesh.authority, "routing", "elsewhere")) == NOT_ACCEPTED
        assert await answered(mesh, issued(mesh.authority, "routing")) == ""


async def test_a_server_with_another_services_certificate_is_not_called(tmp_path: Path) -> None:
    """Whoever took embeddings over must not answer for memory, nor another mesh's memory."""
    authority = new_authority(now())
    for taken in (issued(authority, "embeddings"), issued(authority, "memory", "elsewhere")):
        async with certified(
            tmp_path, registration(Anyone=echo), authority=authority, certificate=taken
        ) as mesh:
            assert await answered(mesh, issued(authority, "routing")) == UNREACHED


@pytest.mark.parametrize(
    "presented",
    [
        {},
        {"peer_spiffe_id": []},
        {"peer_spiffe_id": [b"spiffe://echomesh/routing/more"]},
        {"peer_spiffe_id": [b"spiffe://ECHOMESH/routing"]},
        {"peer_spiffe_id": [b"spiffe://echomesh/routing", b"spiffe://echomesh/auth"]},
        {"x509_common_name": [b"routing"], "peer_dns": [b"routing.echomesh"]},
    ],
)
def test_only_the_one_spiffe_id_names_a_caller(presented: dict[str, list[bytes]]) -> None:
    policy = PeerPolicy("echomesh")
    with pytest.raises(AppError) as refused:
        policy.check("routing", presented)
    assert refused.value.reason is Reason.CALLER_INVALID
    with pytest.raises(AppError):
        policy.check(None, {"peer_spiffe_id": [b"spiffe://echomesh/routing"]})
    policy.check("routing", {"peer_spiffe_id": [b"spiffe://echomesh/routing"]})


async def test_an_instance_found_while_the_files_are_broken_is_called_all_the_same(
    tmp_path: Path,
) -> None:
    """By the certificate that the service has in use."""
    async with certified(tmp_path, registration(Anyone=echo)) as mesh:
        folder = lay(tmp_path / "routing", issued(mesh.authority, "routing"))
        factory = mesh.channels(folder)
        first = factory.channel("memory")
        (folder / KEY).write_bytes(b"junk")
        found = factory.channel_at("memory", f"ipv4:{mesh.server.mesh_bound}")
        with deadline_scope(PATIENCE_S, extend=True):
            for channel in (first, found):
                assert (await method(channel, "Anyone")(Text(value="x"))).value == "x"
        await found.close()
        await factory.close()


# Certificates that change


class Load:
    """Streams that stay open and calls without a pause, by one channel."""

    def __init__(self, channel: Any) -> None:
        self.answers = 0
        self.failures: list[AppError] = []
        self._channel = channel
        self._over = asyncio.Event()

    async def stream(self) -> list[int]:
        """All numbers of a stream that lasts until the end."""
        found = []
        with deadline_scope(PATIENCE_S * 5, extend=True), acting_as(Identity("t", "u"), "u"):
            async for answer in method(self._channel, "Down")(Text(value="count")):
                found.append(int(answer.value))
        return found

    async def calls(self) -> None:
        """One call after the other until the end."""
        one = method(self._channel, "Anyone")
        while not self._over.is_set():
            with deadline_scope(PATIENCE_S, extend=True):
                try:
                    await one(Text(value="x"))
                    self.answers += 1
                except AppError as error:
                    self.failures.append(error)

    def end(self) -> None:
        """Let the calls end."""
        self._over.set()


class Counting:
    """A service whose streams count until they are told to end, and which notes certificates."""

    def __init__(self) -> None:
        self.callers: list[str] = []
        self.ending = asyncio.Event()

    async def down(self, request: Any, context: Any) -> AsyncIterator[Any]:
        number = 0
        while not self.ending.is_set():
            yield Text(value=str(number))
            number += 1
            await asyncio.sleep(0.005)

    async def anyone(self, request: Any, context: Any) -> Any:
        self.callers.append(context.auth_context()["x509_pem_cert"][0].decode())
        return request


async def until(condition: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def until_shown(mesh: Certified, certificate: Pem) -> None:
    """Wait until the server shows a certificate."""
    async with asyncio.timeout(PATIENCE_S):
        while await shown_certificate(mesh.server.mesh_bound) != certificate.cert.decode():
            await asyncio.sleep(0.01)


def _connections(mesh: Certified) -> int:
    port = int(mesh.server.mesh_bound.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return sum(1 for c in found if c.raddr and c.raddr.port == port and c.status == "ESTABLISHED")


@contextmanager
def looking_at_once() -> Iterator[None]:
    """Channels look at their files at every call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reloading, "LOOK_S", 0.0)
        yield


async def _rotate(mesh: Certified, service: Counting, trusts: bytes, signer: Authority) -> None:
    """Give both sides new certificates of `signer`, and wait until they are in use."""
    for name in ("memory", "routing"):
        made = replace(issued(signer, name), authority=trusts)
        lay(mesh.folder / name, made)
        if name == "memory":
            await until_shown(mesh, made)
        else:
            text = made.cert.decode()
            await until(lambda: service.callers[-1] == text)  # noqa: B023 - awaited here


async def test_no_stream_and_no_call_is_lost_while_all_certificates_change(tmp_path: Path) -> None:
    """First renewed, then of a new authority; in between both are trusted."""
    service, old, new = Counting(), new_authority(now()), new_authority(now())
    registered = registration(Down=service.down, Anyone=service.anyone)
    first = issued(old, "routing")
    async with certified(tmp_path, registered, authority=old, validator=_Everyone()) as mesh:
        async with mesh.calling(first) as channel:
            load = Load(channel)
            with looking_at_once():
                streams = [asyncio.create_task(load.stream()) for _ in range(4)]
                calls = asyncio.create_task(load.calls())
                await until(lambda: load.answers > 10)
                await _rotate(mesh, service, old.cert_pem, old)
                await _rotate(mesh, service, old.cert_pem + new.cert_pem, old)
                await _rotate(mesh, service, old.cert_pem + new.cert_pem, new)
                await _rotate(mesh, service, new.cert_pem, new)
                load.end()
                await calls
            assert not any(stream.done() for stream in streams)
            assert _connections(mesh) > 1
            service.ending.set()
            numbers = await asyncio.gather(*streams)
            # The channels that the streams kept open are closed after them.
            await until(lambda: _connections(mesh) <= 1)
        assert await answered(mesh, first) == UNREACHED
    assert load.failures == []
    assert load.answers > 10
    for each in numbers:
        assert each == list(range(len(each)))
        assert len(each) > 10
