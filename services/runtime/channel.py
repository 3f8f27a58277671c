"""The one way to call another service: deadline, identity, trace, retries and errors are set.

A `MeshChannel` is given to a generated stub like any channel. Its calls raise AppError, end when
the running call's time is over, and are cancelled when it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message
from opentelemetry import propagate, trace

from services.runtime import metrics
from services.runtime.authenticate import AUTHORIZATION, CALLER
from services.runtime.certificate_files import CertificateFiles, files_in
from services.runtime.deadline import require_time
from services.runtime.errors import AppError, Reason
from services.runtime.health import Dependency, connected
from services.runtime.identity import current_token, identity_or_none
from services.runtime.metrics import exemplar
from services.runtime.reloading import ReloadingChannel
from services.runtime.retry import service_config
from services.runtime.settings import ServiceSettings
from services.runtime.status import CODES, from_rpc_error
from services.runtime.tls import channel_credentials, channel_options
from services.runtime.tokens import AssertionSigner
from services.runtime.tracing import end_rpc, rpc_attributes

MAX_MESSAGE_BYTES = 4 * 2**20
_TRACER = trace.get_tracer("echomesh.client")
_LATENCY = metrics.histogram(
    "echomesh_rpc_client_seconds", "Time of a call to another service.", ("method", "code")
)
# A frozen peer is noticed by a ping that is not answered; see docs/operations.md.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name: how long a connection may take to be made, all its round trips.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
]


class ChannelFactory:
    """Makes and closes the channels of one process."""

    def __init__(self, settings: ServiceSettings, signer: AssertionSigner) -> None:
        self._settings = settings
        self._signer = signer
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._files: CertificateFiles | None = None

    def channel(self, target: str) -> MeshChannel:
        """The channel to a service, by its name: auth, embeddings, memory, models, routing."""
        if target not in self._channels:
            address: str = getattr(self._settings, f"{target}_target")
            self._channels[target] = self._open(target, address)
        return MeshChannel(self._channels[target], target, self._signer)

    def channel_at(self, target: str, address: str) -> MeshChannel:
        """A channel of its own to one instance of a service, a gRPC target; its user closes it."""
        return MeshChannel(self._open(target, address), target, self._signer, owned=True)

    def _open(self, target: str, address: str) -> grpc.aio.Channel:
        options = [*_OPTIONS, ("grpc.service_config", service_config(target))]
        folder = self._settings.mesh_tls_dir
        if folder is None:
            return grpc.aio.insecure_channel(address, options=options)
        options += channel_options(self._settings.mesh_trust_domain, target)
        # A new instance may be found while the files are of no use: what was good goes on to be.
        self._files = files_in(folder, self._files.current if self._files else None)
        return ReloadingChannel(
            self._files,
            lambda pem: grpc.aio.secure_channel(address, channel_credentials(pem), options=options),
        )

    def dependencies(self) -> Mapping[str, Dependency]:
        """The services that channels were made to, each with whether it is connected."""
        return {name: connected(channel) for name, channel in self._channels.items()}

    async def close(self) -> None:
        """Close every channel; running calls are cancelled."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls carry what every call inside the mesh must carry."""

    def __init__(
        self,
        inner: grpc.aio.Channel,
        target: str,
        signer: AssertionSigner | None,
        *,
        owned: bool = False,
    ) -> None:
        self._inner = inner
        self._owned = owned
        self._target = target
        self._signer = signer

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One request, one response."""
        return self._awaited(method, self._inner.unary_unary(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A stream of requests, one response."""
        return self._awaited(method, self._inner.stream_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One request, a stream of responses."""
        return self._streamed(method, self._inner.unary_stream(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Streams both ways."""
        return self._streamed(method, self._inner.stream_stream(method, *args, **kwargs))

    async def close(self, grace: float | None = None) -> None:
        """Close a connection of its own; the factory closes one that several channels share."""
        if self._owned:
            await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The connection's state."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the connection's state is another."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the connection stands."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> MeshChannel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _awaited(self, method: str, multicallable: Any) -> Callable[..., Any]:
        async def call(request: Any, *, timeout: float | None = None, **_: Any) -> Any:
            with _ClientCall(method, self._target) as client_call:
                _check_size(request)
                try:
                    return await multicallable(
                        request, timeout=_limit(timeout), metadata=self._metadata(client_call)
                    )
                except grpc.aio.AioRpcError as error:
                    raise client_call.failed(error) from error

        return call

    def _streamed(self, method: str, multicallable: Any) -> Callable[..., StreamCall]:
        def call(request: Any, *, timeout: float | None = None, **_: Any) -> StreamCall:
            limit_s = _limit(timeout)
            _check_size(request)
            client_call = _ClientCall(method, self._target)
            started = multicallable(request, timeout=limit_s, metadata=self._metadata(client_call))
            return StreamCall(started, client_call)

        return call

    def _metadata(self, client_call: _ClientCall) -> list[tuple[str, str]]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier, client_call.context)
        metadata = list(carrier.items())
        token = current_token()
        if token is not None:
            metadata.append((AUTHORIZATION, f"Bearer {token}"))
        if self._signer is not None:
            subject = identity_or_none() if token is None else None
            named = subject if subject and subject.user_id else None
            metadata.append((CALLER, self._signer.sign(self._target, named)))
        return metadata


class StreamCall:
    """The responses of a streaming call.

    Iterate it inside `contextlib.aclosing`, so that leaving early cancels the call at once;
    without it the call ends as soon as the iterator is dropped.
    """

    def __init__(self, call: Any, client_call: _ClientCall) -> None:
        self._call = call
        self._client_call = client_call

    def __aiter__(self) -> AsyncIterator[Any]:
        # Not kept here: dropping the iterator must be enough to end the call.
        return self._iterate()

    def cancel(self) -> bool:
        """Cancel the call."""
        return bool(self._call.cancel())

    async def aclose(self) -> None:
        """Cancel the call unless it is over, and end its span."""
        self._call.cancel()
        self._client_call.end(grpc.StatusCode.CANCELLED)

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        with self._client_call as client_call:
            try:
                async for response in self._call:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise client_call.failed(error) from error
            finally:
                self._call.cancel()


class _ClientCall:
    """Span and metrics of one call; ends once, however the call ends."""

    def __init__(self, method: str, target: str) -> None:
        self._method = method
        self._target = target
        self._started = time.monotonic()
        self._span = _TRACER.start_span(
            method.lstrip("/"),
            kind=trace.SpanKind.CLIENT,
            attributes=rpc_attributes(method, target),
        )
        self.context = trace.set_span_in_context(self._span)
        self._ended = False

    def __enter__(self) -> _ClientCall:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if isinstance(error, AppError):
            self.end(CODES[error.reason], error.reason.value)
        elif kind is None:
            self.end(grpc.StatusCode.OK)
        elif issubclass(kind, (asyncio.CancelledError, GeneratorExit)):
            self.end(grpc.StatusCode.CANCELLED)
        else:
            self.end(grpc.StatusCode.UNKNOWN)

    def failed(self, error: grpc.aio.AioRpcError) -> AppError:
        """The error to raise for a failed call."""
        return from_rpc_error(error, self._target)

    def end(self, code: grpc.StatusCode, reason: str = "") -> None:
        """Record how the call ended; only the first time counts."""
        if self._ended:
            return
        self._ended = True
        end_rpc(self._span, code, reason)
        self._span.end()
        elapsed = time.monotonic() - self._started
        _LATENCY.labels(self._method, code.name).observe(elapsed, exemplar(self._span))


def _check_size(request: Any) -> None:
    """Refuse here what the other side would refuse without saying why."""
    if isinstance(request, Message) and request.ByteSize() > MAX_MESSAGE_BYTES:
        raise AppError(Reason.MESSAGE_TOO_LARGE, "the message is larger than 4 MiB")


def _limit(timeout: float | None) -> float:
    """The call's own limit, never beyond what the running call has left."""
    left = require_time()
    return left if timeout is None else min(timeout, left)
