"""Channels, tokens, deadlines and retries: everything between a method and the wire."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor

from echomesh import _trace
from echomesh._errors import EchomeshError, from_rpc_error
from echomesh._peers import Peer, PeerLostError, Peers
from echomesh._services import SERVICES
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.common.v1 import options_pb2
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc, routing_pb2, routing_pb2_grpc

_T = TypeVar("_T")
# A token is renewed this long before it expires, so that a call never starts with a stale one.
_RENEW_BEFORE_S = 30.0
_GET_ENDPOINTS = "echomesh.routing.v1.MeshService/GetEndpoints"
_BACKOFF_S = 0.1
_BACKOFF_CAP_S = 1.0
_CHANNEL_OPTIONS = [
    # Servers allow a ping every 10 s on public listeners.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name: how long a connection may take to be made, all its round trips.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Else a new channel to the same address would use the connection that was just given up.
    ("grpc.use_local_subchannel_pool", 1),
    # Retries are this module's: gRPC would not keep them within one deadline.
    ("grpc.enable_retries", 0),
]


class Deadline:
    """A moment by which all attempts of a call together must have ended."""

    def __init__(self, timeout_s: float) -> None:
        self._ends = time.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._ends - time.monotonic())


@contextlib.asynccontextmanager
async def _within(deadline: Deadline) -> AsyncGenerator[None, None]:
    """Bound waiting for what another call is doing by the deadline of this one."""
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            yield
    except TimeoutError:
        late = "the deadline has passed"
        raise EchomeshError(grpc.StatusCode.DEADLINE_EXCEEDED, late) from None


class Transport:
    """Channels to a mesh, found from one address. Shared by the client and its `as_user`s.

    An address, given or found, may name several replicas: host:port, separated by commas.
    """

    def __init__(
        self,
        address: str,
        root_certificates: bytes | None,
        *,
        tls: bool | None = None,
        forwarded: bool = False,
        endpoints: Mapping[str, str] | None = None,
        server_name: str | None = None,
    ) -> None:
        self._address = address
        self._given = endpoints or {}
        self._server_name = server_name
        self._roots = root_certificates
        self._tls = tls
        self._forwarded = forwarded
        self._peers = Peers(self._connect)
        self._endpoints: dict[str, str] | None = None
        self._finding = asyncio.Lock()

    async def stub(self, stub_class: type[Any], deadline: Deadline) -> tuple[Any, Peer]:
        """A stub on a replica of its service, and the replica; looks addresses up on first use."""
        addresses = self._address
        if stub_class is not routing_pb2_grpc.MeshServiceStub:
            endpoints = await self._find(deadline)
            addresses = endpoints.get(SERVICES[stub_class].full_name, self._address)
        peer = self._peers.pick(addresses)
        return stub_class(peer.channel), peer

    async def _find(self, deadline: Deadline) -> dict[str, str]:
        async with _within(deadline), self._finding:
            if self._endpoints is None:
                peer = self._peers.pick(self._address)
                with _trace.client_span(_GET_ENDPOINTS) as span:
                    call = routing_pb2_grpc.MeshServiceStub(peer.channel).GetEndpoints(
                        routing_pb2.GetEndpointsRequest(),
                        timeout=deadline.remaining_s(),
                        metadata=span.metadata,
                    )
                    with peer.watching(call):
                        answer = await call
                self._endpoints = {
                    e.service: self._reached(e.service, e.address) for e in answer.endpoints
                }
            return self._endpoints

    def _reached(self, service: str, address: str) -> str:
        """Where a service that the mesh says is at `address` is reached from here."""
        given = self._given.get(service.split(".")[1])
        if given:
            return given
        if not self._forwarded:
            return address
        host, port = self._address.rpartition(":")[0], address.rpartition(":")[2]
        return f"{host}:{port}"

    def forget_endpoints(self) -> None:
        """Look the addresses up again: a service may have moved."""
        self._endpoints = None

    def _connect(self, address: str) -> grpc.aio.Channel:
        tls = not is_loopback(address) if self._tls is None else self._tls
        if not tls:
            return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self._roots)
        named = [("grpc.ssl_target_name_override", self._server_name)] if self._server_name else []
        return grpc.aio.secure_channel(address, credentials, options=[*_CHANNEL_OPTIONS, *named])

    async def close(self) -> None:
        """Close every channel."""
        await self._peers.close()


def is_loopback(address: str) -> bool:
    """True if the address names this machine, where TLS adds nothing."""
    host = address.rsplit(":", 1)[0].strip("[]").removeprefix("ipv4:")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class TokenSource:
    """Keeps one identity's access token fresh.

    `sign_in` gets a first pair of tokens; after that the refresh token is used, and `sign_in`
    again only if the refresh is refused.
    """

    def __init__(
        self,
        transport: Transport,
        sign_in: Callable[[Deadline], Awaitable[auth_pb2.Tokens]],
    ) -> None:
        self._transport = transport
        self._sign_in = sign_in
        self._tokens: auth_pb2.Tokens | None = None
        # Kept until there are new tokens: a refresh token sent again under another id is reuse.
        self._refresh_id = ""
        self._lock = asyncio.Lock()

    async def access_token(self, deadline: Deadline) -> str:
        """A token that is valid for a while yet."""
        async with _within(deadline), self._lock:
            if self._tokens is None or self._expiring(self._tokens):
                self._tokens = await self._renew(deadline)
                self._refresh_id = ""
            return self._tokens.access_token

    def drop(self, access_token: str) -> None:
        """Do not use this access token again: the mesh refused it. A newer one stays."""
        if self._tokens is not None and self._tokens.access_token == access_token:
            self._tokens.access_expires_at.seconds = 0

    @staticmethod
    def _expiring(tokens: auth_pb2.Tokens) -> bool:
        return tokens.access_expires_at.seconds - time.time() < _RENEW_BEFORE_S

    async def _renew(self, deadline: Deadline) -> auth_pb2.Tokens:
        if self._tokens is not None:
            try:
                return await self._refresh(self._tokens.refresh_token, deadline)
            except EchomeshError as error:
                if error.code is not grpc.StatusCode.UNAUTHENTICATED:
                    raise
        return await self._sign_in(deadline)

    async def _refresh(self, refresh_token: str, deadline: Deadline) -> auth_pb2.Tokens:
        self._refresh_id = self._refresh_id or str(uuid.uuid4())
        request = auth_pb2.RefreshRequest(refresh_token=refresh_token, request_id=self._refresh_id)
        answer = await unary(
            self._transport, None, auth_pb2_grpc.AuthServiceStub, "Refresh", request, deadline
        )
        return answer.tokens  # type: ignore[no-any-return]


async def unary(
    transport: Transport,
    tokens: TokenSource | None,
    stub_class: type[Any],
    method: str,
    request: Any,
    deadline: Deadline,
) -> Any:
    """Call a method, trying again while it is idempotent, the failure passing and time left.

    Raises EchomeshError.
    """
    descriptor = SERVICES[stub_class].methods_by_name[method]
    attempts = Attempts(descriptor, deadline)
    with _trace.client_span(f"{descriptor.containing_service.full_name}/{method}") as span:
        while True:
            try:
                with span.below():
                    own = await attempts.authorization(tokens, deadline)
                    stub, peer = await transport.stub(stub_class, deadline)
                metadata = [*span.metadata, *own]
                call = getattr(stub, method)(
                    request, timeout=deadline.remaining_s(), metadata=metadata
                )
                with peer.watching(call):
                    return await call
            except FAILURES as error:
                await attempts.after(failure(error), transport, tokens)
                span.tried_again(failure(error))


# What a call may fail with before its error is made one of ours.
FAILURES = (grpc.aio.AioRpcError, PeerLostError)


def failure(error: grpc.aio.AioRpcError | PeerLostError) -> EchomeshError:
    """The error that a failed call is told as; one without a reason is the connection's."""
    if isinstance(error, PeerLostError):
        return EchomeshError(grpc.StatusCode.UNAVAILABLE, "the replica stopped answering")
    known = from_rpc_error(error)
    if _is_connections(known):
        return EchomeshError(grpc.StatusCode.UNAVAILABLE, "the replica ended the call")
    return known


def _is_connections(error: EchomeshError) -> bool:
    """Whether an error is the connection's by another name: the mesh's own have a reason.

    CANCELLED (not by us, who would not be told) is what reaches a server as it stops, and a server
    or proxy that dies may reset its streams.
    """
    if error.reason:
        return False
    reset = error.code is grpc.StatusCode.INTERNAL and "RST_STREAM" in error.message
    return error.code is grpc.StatusCode.CANCELLED or reset


class Attempts:
    """Decides after each failure whether to try again, and waits before it."""

    def __init__(self, method: MethodDescriptor, deadline: Deadline) -> None:
        retry = method.GetOptions().Extensions[options_pb2.retry]
        self._left = max(1, retry.max_attempts) if retry.idempotent else 1
        self._once = self._left == 1
        self._deadline = deadline
        self._made = 0
        self._renewed = False
        self._token = ""

    async def authorization(
        self, tokens: TokenSource | None, deadline: Deadline
    ) -> list[tuple[str, str]]:
        """The metadata that says who calls."""
        if tokens is None:
            return []
        self._token = await tokens.access_token(deadline)
        return [("authorization", f"Bearer {self._token}")]

    async def after(
        self, error: EchomeshError, transport: Transport, tokens: TokenSource | None
    ) -> None:
        """Return to try again; raise the error to give up."""
        if error.reason == "TOKEN_EXPIRED" and tokens is not None and not self._renewed:
            self._renewed = True
            tokens.drop(self._token)
            return
        if error.reason or error.code is not grpc.StatusCode.UNAVAILABLE:
            # An error without a reason is the connection's: a service may be starting again,
            # which may take as long as the caller is willing to wait.
            self._left -= 1
        wait_s = self._wait_s(error)
        if self._once or self._left < 1 or wait_s is None or wait_s >= self._deadline.remaining_s():
            raise error
        if error.code is grpc.StatusCode.UNAVAILABLE:
            transport.forget_endpoints()
        await asyncio.sleep(wait_s)

    def _wait_s(self, error: EchomeshError) -> float | None:
        if error.retry_after is not None:
            return error.retry_after
        if error.code is not grpc.StatusCode.UNAVAILABLE:
            return None
        backoff_s: float = min(_BACKOFF_CAP_S, _BACKOFF_S * 2**self._made)
        self._made += 1
        return backoff_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter


async def stream(
    transport: Transport,
    tokens: TokenSource,
    request: chat_pb2.ChatRequest,
    deadline: Deadline,
    attempts: Attempts,
    span: _trace.ClientSpan,
) -> AsyncGenerator[chat_pb2.ChatResponse, None]:
    """One attempt at Chat, below `span`. Leaving the iteration early cancels the call."""
    with span.below():
        own = await attempts.authorization(tokens, deadline)
        stub, peer = await transport.stub(chat_pb2_grpc.ChatServiceStub, deadline)
    metadata = [*span.metadata, *own]
    call = stub.Chat(request, timeout=deadline.remaining_s(), metadata=metadata)
    try:
        with peer.watching(call) as watch:
            async for response in call:
                watch.heard()
                yield response
    finally:
        call.cancel()


def chat_method() -> MethodDescriptor:
    """The descriptor of Chat, whose options say how often it may be tried."""
    return chat_pb2.DESCRIPTOR.services_by_name["ChatService"].methods_by_name["Chat"]
