"""Every RPC of a running mesh, on each listener that serves it, called with raw bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from echomesh.common.v1 import options_pb2
from services.runtime.clock import SystemClock
from services.runtime.settings import local_address
from services.runtime.tokens import AssertionSigner
from services.runtime.trust import load_private
from tests.faults.attack.answers import Answer, answer_of
from tests.support.contracts import access, methods, path
from tests.support.mesh import RunningMesh

CALL_S = 10.0
"""Much longer than any answer takes: what has not come by then hangs."""

PUBLIC_SERVICES = ("auth", "memory", "routing")
# The engine of the embedded index listens on a unix socket in a private folder, for its parent
# process alone; it is no part of the network's contract.
_UNREACHABLE = "echomesh.worker."
_CALLER = {"auth": "routing", "memory": "routing", "routing": "memory"}
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


@dataclass(frozen=True)
class Rpc:
    """One method on one listener (`public` or `mesh`)."""

    method: MethodDescriptor
    service: str
    listener: str

    @property
    def path(self) -> str:
        """`/package.Service/Method`."""
        return path(self.method)

    @property
    def internal(self) -> bool:
        """Whether only services of the mesh may call it."""
        return access(self.method) == options_pb2.ACCESS_SERVICE

    def __str__(self) -> str:
        return f"{self.listener}:{self.path}"


def all_rpcs() -> list[Rpc]:
    """Each RPC on the listeners where it can be reached."""
    return [
        Rpc(method, service, listener)
        for method in methods()
        if not method.containing_service.full_name.startswith(_UNREACHABLE)
        for service in [method.containing_service.full_name.split(".")[1]]
        for listener in ("public", "mesh")
        if listener == "mesh" or service in PUBLIC_SERVICES
    ]


@dataclass
class Caller:
    """Makes raw calls to a mesh. On mesh listeners it is the service that usually calls."""

    mesh: RunningMesh
    _channels: dict[tuple[str, str], grpc.aio.Channel] = field(default_factory=dict)
    _signers: dict[str, AssertionSigner] = field(default_factory=dict)

    async def call(
        self,
        rpc: Rpc,
        data: bytes,
        token: str = "",
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout_s: float = CALL_S,
    ) -> Answer:
        """Send bytes as a request and return how the call ended."""
        sent: list[tuple[str, str | bytes]] = list(metadata)
        if token:
            sent.append(("authorization", f"Bearer {token}"))
        if rpc.listener == "mesh":
            sent.append(("x-echomesh-caller", self.assertion(rpc.service)))
        kind: Any = self.channel(rpc.service, rpc.listener)
        make = kind.unary_stream if rpc.method.server_streaming else kind.unary_unary
        return await answer_of(make(rpc.path)(data, metadata=sent, timeout=timeout_s))

    def assertion(self, audience: str) -> str:
        """A true assertion of a service that may call `audience`."""
        name = _CALLER.get(audience, "routing")
        if audience == "embeddings":
            name = "memory"
        if name not in self._signers:
            key = load_private(self.mesh.data / "trust", name)
            self._signers[name] = AssertionSigner(name, key, SystemClock())
        return self._signers[name].sign(audience)

    def channel(self, service: str, listener: str) -> grpc.aio.Channel:
        """An open channel to a listener."""
        if (service, listener) not in self._channels:
            address = self.address(service, listener)
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            self._channels[service, listener] = channel
        return self._channels[service, listener]

    def address(self, service: str, listener: str) -> str:
        """host:port of a listener."""
        return local_address(service, listener, self.mesh.port_base)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()
