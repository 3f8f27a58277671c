"""The asynchronous client."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from echomesh import _session
from echomesh._auditing import Auditing
from echomesh._chatting import Chatting
from echomesh._conversations import Conversations
from echomesh._explaining import Explaining
from echomesh._memories import Memories
from echomesh._session import Deadline, TokenSource, Transport
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.routing.v1 import routing_pb2, routing_pb2_grpc

_CALL_TIMEOUT_S = 10.0


class Client(Chatting, Explaining, Memories, Conversations, Auditing):
    """A user's connection to a mesh.

    `address` is the host:port of any routing replica, or several separated by commas, of which
    one that fails is passed over; the other services are found from it. With `forwarded` it is
    a forwarded port (`kubectl port-forward`, `ssh -L`), and so are the other services' ports, at
    the same host and by their own numbers. `endpoints` says where auth, memory and routing are
    reached from here, by these names, in place of what the mesh says.
    TLS is used unless the address is loopback, or as `tls` says; `server_name` is the name in the
    servers' certificates where it is not that of the address. Timeouts are in seconds, for all
    attempts of a call together. Methods raise EchomeshError.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7400",
        *,
        api_key: str,
        root_certificates: bytes | None = None,
        tls: bool | None = None,
        forwarded: bool = False,
        endpoints: Mapping[str, str] | None = None,
        server_name: str | None = None,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> None:
        self._transport = Transport(
            address,
            root_certificates,
            tls=tls,
            forwarded=forwarded,
            endpoints=endpoints,
            server_name=server_name,
        )
        self._owns_transport = True
        self._timeout_s = timeout_s
        self._tokens = TokenSource(self._transport, self._exchange_key(api_key))

    def as_user(self, external_user_id: str) -> Client:
        """The same mesh as one of the application's end users, who is made on first use.

        The key must have the role `app`. Closing the result closes nothing.
        """
        other = object.__new__(Client)
        other._transport = self._transport
        other._owns_transport = False
        other._timeout_s = self._timeout_s

        async def sign_in(deadline: Deadline) -> auth_pb2.Tokens:
            request = auth_pb2.ExchangeTokenRequest(external_user_id=external_user_id)
            stub = auth_pb2_grpc.AuthServiceStub
            answer = await _session.unary(
                self._transport, self._tokens, stub, "ExchangeToken", request, deadline
            )
            return answer.tokens  # type: ignore[no-any-return]

        other._tokens = TokenSource(self._transport, sign_in)
        return other

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_transport:
            await self._transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def endpoints(self) -> dict[str, str]:
        """Where each client-facing gRPC service listens."""
        answer = await _session.unary(
            self._transport,
            None,
            routing_pb2_grpc.MeshServiceStub,
            "GetEndpoints",
            routing_pb2.GetEndpointsRequest(),
            Deadline(self._timeout_s),
        )
        return {e.service: e.address for e in answer.endpoints}

    def _exchange_key(self, api_key: str) -> Any:
        async def sign_in(deadline: Deadline) -> auth_pb2.Tokens:
            request = auth_pb2.ExchangeApiKeyRequest(api_key=api_key)
            stub = auth_pb2_grpc.AuthServiceStub
            answer = await _session.unary(
                self._transport, None, stub, "ExchangeApiKey", request, deadline
            )
            return answer.tokens  # type: ignore[no-any-return]

        return sign_in
