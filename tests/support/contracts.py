"""Every RPC of the mesh, found from the protos, so that no test can forget one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

import echomesh
from echomesh.common.v1 import options_pb2

_PACKAGES = ("auth", "embeddings", "memory", "models", "routing", "worker")


def _files() -> Iterator[Any]:
    for package in _PACKAGES:
        folder = f"{echomesh.__path__[0]}/{package}/v1"
        for module in pkgutil.iter_modules([folder]):
            if module.name.endswith("_pb2"):
                yield importlib.import_module(f"echomesh.{package}.v1.{module.name}").DESCRIPTOR


def methods() -> list[MethodDescriptor]:
    """All methods of all services."""
    return [
        method
        for file in _files()
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def path(method: MethodDescriptor) -> str:
    """`/package.Service/Method`."""
    return f"/{method.containing_service.full_name}/{method.name}"


def access(method: MethodDescriptor) -> int:
    """The access that its policy gives."""
    return int(method.GetOptions().Extensions[options_pb2.policy].access)


def call(channel: Any, method: MethodDescriptor, request: Any, **options: Any) -> Any:
    """Call any method on a bare channel."""
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    multicallable = kind(
        path(method),
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return multicallable(request, **options)
