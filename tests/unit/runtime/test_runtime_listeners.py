"""What a listener lets in: sizes, bytes, TLS, debug services, deadlines; and what it lets out."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime.channel import MAX_MESSAGE_BYTES
from services.runtime.deadline import MAX_DEADLINE_S, remaining_s
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, acting_as
from services.runtime.interceptor import DEFAULT_DEADLINE_S
from services.runtime.server import Server
from services.runtime.settings import ServiceSettings
from services.runtime.tls import public_credentials
from tests.support.transport import SERVICE, Text, method, registration, serving
from tests.support.waiting import overdue


async def echo(request: Any, context: Any) -> Any:
    return request


class _Everyone:
    """A validator for which a token is the user's name."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        return Identity("tenant-1", token)


# Limits


async def test_a_message_over_4_mib_is_refused_and_the_connection_lives_on(tmp_path: Path) -> None:
    async with serving(tmp_path, registration(Public=echo)) as wire, wire.raw() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(channel, "Public")(Text(value="x" * (MAX_MESSAGE_BYTES + 1)))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await method(channel, "Public")(Text(value="x"))).value == "x"


async def test_a_service_is_told_that_its_message_is_too_large(tmp_path: Path) -> None:
    async with serving(tmp_path, registration(Anyone=echo)) as wire, wire.mesh() as channel:
        with pytest.raises(AppError) as refused:
            await method(channel, "Anyone")(Text(value="x" * (MAX_MESSAGE_BYTES + 1)))
    assert refused.value.reason is Reason.MESSAGE_TOO_LARGE
    assert refused.value.retry_after_s is None


async def test_metadata_over_its_limit_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, registration(Public=echo)) as wire, wire.raw() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(channel, "Public")(Text(), metadata=[("x-junk", "x" * 40_000)])
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, registration(Public=echo)) as wire:
        host, port = wire.server.public_bound.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(60):
            while await reader.read(1024):
                pass
        writer.close()


async def test_a_cancelled_call_gives_its_place_back(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        if request.value == "wait":
            entered.set()
            await asyncio.sleep(30)
        return request

    service = registration(Public=wait)
    async with serving(tmp_path, service, max_in_flight=1) as wire, wire.raw() as channel:
        first = asyncio.ensure_future(method(channel, "Public")(Text(value="wait")))
        await asyncio.wait_for(entered.wait(), 30)
        first.cancel()
        async with asyncio.timeout(30):
            while True:
                try:
                    await method(channel, "Public")(Text(value="next"))
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    await asyncio.sleep(0.01)


async def test_health_answers_while_every_place_is_taken(tmp_path: Path) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        entered.set()
        await leave.wait()
        return request

    service = registration(Public=wait)
    async with serving(tmp_path, service, max_in_flight=1) as wire, wire.raw() as channel:
        first = asyncio.ensure_future(method(channel, "Public")(Text()))
        await asyncio.wait_for(entered.wait(), 30)
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        leave.set()
        await first


# Errors that must not leak


@pytest.mark.parametrize("kind", ["Up", "Both"])
async def test_bad_bytes_in_a_stream_of_requests_are_refused_too(tmp_path: Path, kind: str) -> None:
    async def read(requests: AsyncIterator[Any], context: Any) -> Any:
        async for _ in requests:
            pass
        return Text()

    async def answer_each(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield request

    async def junk() -> AsyncIterator[bytes]:
        yield b"\xff\xff\xff"

    service = registration(Up=read, Both=answer_each)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.raw() as channel:
        token = [("authorization", "Bearer alice")]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            if kind == "Up":
                await channel.stream_unary(f"/{SERVICE}/Up")(junk(), metadata=token)
            else:
                both = channel.stream_stream(f"/{SERVICE}/Both")
                async for _ in both(junk(), metadata=token):
                    pass
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unhandled_error_of_a_call_further_down_leaks_nothing(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as dead:

        async def call_down(request: Any, context: Any) -> Any:
            return await method(dead, "Public")(Text())

        async with serving(tmp_path, registration(Public=call_down)) as wire, wire.raw() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(channel, "Public")(Text())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error"


async def test_the_one_failure_inside_a_task_group_keeps_its_reason(tmp_path: Path) -> None:
    async def miss() -> None:
        raise AppError(Reason.NOT_FOUND, "no such thing")

    async def group(request: Any, context: Any) -> Any:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(miss())

    async with serving(tmp_path, registration(Anyone=group)) as wire, wire.mesh() as channel:
        with pytest.raises(AppError) as caught:
            await method(channel, "Anyone")(Text())
    assert caught.value.reason is Reason.NOT_FOUND


# Deadlines


@pytest.mark.parametrize(
    ("asked_s", "given_s"), [(None, DEFAULT_DEADLINE_S), (3600.0, MAX_DEADLINE_S), (30.0, 30.0)]
)
async def test_a_call_has_a_default_deadline_and_a_cap(
    tmp_path: Path, asked_s: float | None, given_s: float
) -> None:
    seen: list[float] = []

    async def look(request: Any, context: Any) -> Any:
        seen.append(remaining_s())
        return request

    async with serving(tmp_path, registration(Public=look)) as wire, wire.raw() as channel:
        await method(channel, "Public")(Text(), timeout=asked_s)
    # gRPC writes a deadline with few digits and rounds up.
    assert given_s / 2 < seen[0] <= given_s + 1


async def test_checking_a_token_counts_against_the_deadline(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    class Frozen:
        async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    async with serving(tmp_path, registration(One=echo), validator=Frozen()) as wire:
        async with wire.mesh() as channel:
            with acting_as(Identity("t", "u"), "token"):
                late = await overdue(lambda: method(channel, "One")(Text()), begun)
        await asyncio.wait_for(ended.wait(), 30)
    assert late.reason is Reason.DEADLINE_EXCEEDED


# Debug services and TLS


async def _lists_services(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async for answer in stub.ServerReflectionInfo(ask(), timeout=30):
        return {service.name for service in answer.list_services_response.service}
    return set()


@asynccontextmanager
async def listening(folder: Path, **extra: Any) -> AsyncIterator[Server]:
    """A server with a public listener alone and these settings."""
    settings = ServiceSettings(public_address="localhost:0", data_dir=folder, **extra)
    server = Server("memory", settings, public=[registration(Public=echo)])
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0)


async def test_reflection_is_off_unless_the_setting_says_so(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        async with grpc.aio.insecure_channel(server.public_bound) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _lists_services(channel)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    async with listening(tmp_path, reflection=True) as server:
        async with grpc.aio.insecure_channel(server.public_bound) as channel:
            assert SERVICE in await _lists_services(channel)


def _certificate(folder: Path, name: str) -> tuple[Path, Path, bytes]:
    """A self-signed certificate for localhost: its files and its PEM text."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = cert.public_bytes(serialization.Encoding.PEM)
    (folder / "tls.crt").write_bytes(pem)
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "tls.crt", folder / "tls.key", pem


async def _echoes(address: str, root: bytes) -> bool:
    """Whether a new connection that trusts only `root` gets an answer."""
    credentials = grpc.ssl_channel_credentials(root)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        try:
            await method(channel, "Public")(Text(), timeout=30)
        except grpc.aio.AioRpcError:
            return False
        return True


async def test_the_public_listener_speaks_tls_and_takes_a_new_certificate(tmp_path: Path) -> None:
    cert, key, first = _certificate(tmp_path, "first")
    async with listening(tmp_path, public_tls_cert=cert, public_tls_key=key) as server:
        assert await _echoes(server.public_bound, first)
        _, _, second = _certificate(tmp_path, "second")
        assert await _echoes(server.public_bound, second)
        assert not await _echoes(server.public_bound, first)


async def test_half_of_a_tls_setting_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="belong together"):
        async with listening(tmp_path, public_tls_cert=tmp_path / "tls.crt"):
            pass


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "mesh.example.org:0"])
async def test_a_public_listener_off_loopback_without_tls_is_one_clear_error(
    tmp_path: Path, address: str
) -> None:
    settings = ServiceSettings(public_address=address, data_dir=tmp_path)
    server = Server("memory", settings, public=[registration(Public=echo)])
    with pytest.raises(AppError, match=r"in the clear.*public_tls_cert.*public_plaintext") as said:
        await server.start()
    assert "\n" not in said.value.message
    assert server.public_bound == ""


async def test_a_setting_allows_plain_text_behind_something_that_speaks_tls(
    tmp_path: Path,
) -> None:
    settings = ServiceSettings(public_address="0.0.0.0:0", data_dir=tmp_path, public_plaintext=True)
    server = Server("memory", settings, public=[registration(Public=echo)])
    await server.start()
    try:
        port = server.public_bound.rpartition(":")[2]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await method(channel, "Public")(Text(value="x"))).value == "x"
    finally:
        await server.stop(grace_s=0)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/run/x.sock"]
)
def test_what_only_this_machine_reaches_needs_no_tls(tmp_path: Path, address: str) -> None:
    assert public_credentials(ServiceSettings(public_address=address, data_dir=tmp_path)) is None
