"""A made-up gRPC service with a method of each kind, and servers and channels around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import Default as default_pool

from echomesh.common.v1 import options_pb2
from services.runtime.channel import MeshChannel
from services.runtime.clock import SystemClock
from services.runtime.server import Registration, Server
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionSigner, AssertionVerifier, TokenValidator
from services.runtime.trust import create_trust, load_private, load_public

SERVICE = "echomesh.test.v1.EchoService"
Text = wrappers_pb2.StringValue
_KINDS = {
    "One": (False, False),
    "Down": (False, True),
    "Up": (True, False),
    "Both": (True, True),
    "Public": (False, False),
    "Admin": (False, False),
    "Internal": (False, False),
    "Anyone": (False, False),
    "NoPolicy": (False, False),
}
_ACCESS = {
    "Public": options_pb2.ACCESS_PUBLIC,
    "Admin": options_pb2.ACCESS_ADMIN,
    "Internal": options_pb2.ACCESS_SERVICE,
    "Anyone": options_pb2.ACCESS_SERVICE,
    "NoPolicy": options_pb2.ACCESS_UNSPECIFIED,
}


def _declare() -> None:
    """Add the service's descriptor to the pool, as a generated file would."""
    file = descriptor_pb2.FileDescriptorProto(
        name="echomesh/test/v1/echo.proto",
        package="echomesh.test.v1",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto", "echomesh/common/v1/options.proto"],
    )
    service = file.service.add(name="EchoService")
    for name, (up, down) in _KINDS.items():
        method = service.method.add(name=name, client_streaming=up, server_streaming=down)
        method.input_type = method.output_type = ".google.protobuf.StringValue"
        policy = method.options.Extensions[options_pb2.policy]
        policy.access = _ACCESS.get(name, options_pb2.ACCESS_USER)
        if name == "Internal":
            policy.callers.append("routing")
        policy.subject_optional = name == "Anyone"
    default_pool().Add(file)


_declare()
_HANDLERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def registration(**behaviors: Callable[..., Any]) -> Registration:
    """A servicer out of plain functions, by method name."""

    def add(_: object, server: grpc.aio.Server) -> None:
        handlers = {
            name: _HANDLERS[_KINDS[name]](
                behavior,
                request_deserializer=Text.FromString,
                response_serializer=Text.SerializeToString,
            )
            for name, behavior in behaviors.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    return Registration(add, None, SERVICE)


def method(channel: Any, name: str) -> Any:
    """A callable for one method, as a generated stub would hold it."""
    up, down = _KINDS[name]
    kind = f"{'stream' if up else 'unary'}_{'stream' if down else 'unary'}"
    return getattr(channel, kind)(
        f"/{SERVICE}/{name}",
        request_serializer=Text.SerializeToString,
        response_deserializer=Text.FromString,
    )


@dataclass
class Wire:
    """A running server, the key of a calling service, and raw channels to both listeners."""

    server: Server
    trust: Path

    @asynccontextmanager
    async def mesh(self, caller: str = "routing") -> AsyncIterator[MeshChannel]:
        """A channel as a service of the mesh has it."""
        signer = AssertionSigner(caller, load_private(self.trust, caller), SystemClock())
        async with grpc.aio.insecure_channel(self.server.mesh_bound) as raw:
            yield MeshChannel(raw, self.server.name, signer)

    @asynccontextmanager
    async def raw(self, *, public: bool = True) -> AsyncIterator[grpc.aio.Channel]:
        """A bare channel, as anybody's program has it."""
        bound = self.server.public_bound if public else self.server.mesh_bound
        async with grpc.aio.insecure_channel(bound) as channel:
            yield channel


@asynccontextmanager
async def serving(
    folder: Path,
    *registrations: Registration,
    validator: TokenValidator | None = None,
    max_in_flight: int = 100,
    name: str = "memory",
) -> AsyncIterator[Wire]:
    """Serve on both listeners until the block ends."""
    create_trust(folder, ("routing", "memory", "embeddings"))
    settings = ServiceSettings(
        public_address="127.0.0.1:0", mesh_address="127.0.0.1:0", data_dir=folder, trust_dir=folder
    )
    server = Server(
        name,
        settings,
        public=registrations,
        mesh=registrations,
        validator=validator,
        verifier=AssertionVerifier(name, load_public(folder), SystemClock()),
        max_in_flight=max_in_flight,
    )
    await server.start()
    try:
        yield Wire(server, folder)
    finally:
        await server.stop(grace_s=0)
