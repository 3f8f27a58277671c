"""The interface of Terraform's Helm provider 3.1, where the provider itself cannot be fetched.

Terraform checks what the modules say against a provider's schema, and its mocks are made from one.
The attributes here are those of hashicorp/helm 3.1 that the modules use, by name, type and kind;
nothing is installed by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import msgpack

_STRING, _BOOL, _NUMBER = '"string"', '"bool"', '"number"'


@contextmanager
def serving() -> Iterator[str]:
    """Serve the interface on a socket; yields TF_REATTACH_PROVIDERS for Terraform."""
    # Compiled now; found from the repository's root, as modules are.
    protos = grpc.protos("tests/terraform/plugin.proto")
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((_handlers(protos),))
    with TemporaryDirectory() as folder:  # a socket's path is short
        socket = Path(folder) / "helm.sock"
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            yield json.dumps({"registry.terraform.io/hashicorp/helm": _attachment(socket)})
        finally:
            server.stop(0).wait()


def _attachment(socket: Path) -> dict[str, Any]:
    return {
        "Protocol": "grpc",
        "ProtocolVersion": 6,
        "Pid": os.getpid(),
        "Test": True,
        "Addr": {"Network": "unix", "String": str(socket)},
    }


def _handlers(protos: Any) -> grpc.GenericRpcHandler:
    """What the provider looks like, and plans of whatever is asked for."""
    schema = _schema(protos)
    answers = {
        "GetProviderSchema": (protos.GetProviderSchema, lambda _request: schema),
        "ValidateProviderConfig": (protos.Validate, lambda _request: protos.Validate.Response()),
        "ValidateResourceConfig": (protos.Validate, lambda _request: protos.Validate.Response()),
        "ConfigureProvider": (protos.Configure, lambda _request: protos.Configure.Response()),
        "PlanResourceChange": (protos.PlanResourceChange, lambda request: _plan(protos, request)),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, _context, answer=answer: answer(request),
            request_deserializer=kind.Request.FromString,
            response_serializer=kind.Response.SerializeToString,
        )
        for name, (kind, answer) in answers.items()
    }
    return grpc.method_handlers_generic_handler("tfplugin6.Provider", handlers)


def _plan(protos: Any, request: Any) -> Any:
    state = msgpack.unpackb(request.proposed_new_state.msgpack)
    # Write-only values stay out of plans.
    planned = msgpack.packb(state and {**state, "set_wo": None})
    return protos.PlanResourceChange.Response(planned_state={"msgpack": planned})


def _schema(protos: Any) -> Any:
    make = _Maker(protos)
    pair = [make.leaf("name", required=True), make.leaf("value", required=True)]
    typed = [*pair, make.leaf("type", optional=True)]
    secret = [
        make.leaf("name", required=True, write_only=True),
        make.leaf("value", required=True, write_only=True),
        make.leaf("type", optional=True, write_only=True),
    ]
    release = [
        make.leaf("id", computed=True),
        make.leaf("name", required=True),
        make.leaf("chart", required=True),
        *(make.leaf(name, optional=True) for name in ("repository", "description")),
        make.leaf("version", optional=True, computed=True),
        make.leaf("namespace", optional=True, computed=True),
        *(make.leaf(name, _BOOL, optional=True, computed=True) for name in _SWITCHES),
        make.leaf("max_history", _NUMBER, optional=True, computed=True),
        make.leaf("timeout", _NUMBER, optional=True, computed=True),
        make.leaf("values", f'["list",{_STRING}]', optional=True),
        make.nested("set", "LIST", typed, optional=True),
        make.nested("set_wo", "LIST", secret, optional=True, write_only=True),
        make.leaf("set_wo_revision", _NUMBER, optional=True),
        make.leaf("status", computed=True),
    ]
    login = [
        make.leaf("api_version", required=True),
        make.leaf("command", required=True),
        make.leaf("args", f'["list",{_STRING}]', optional=True),
    ]
    reached_by = ("config_context", "config_path", "cluster_ca_certificate", "host", "token")
    kubernetes = [
        *(make.leaf(name, optional=True) for name in reached_by),
        make.nested("exec", "SINGLE", login, optional=True),
    ]
    provider = [make.nested("kubernetes", "SINGLE", kubernetes, optional=True)]
    schemas = {"helm_release": make.schema(release)}
    return protos.GetProviderSchema.Response(
        provider=make.schema(provider), resource_schemas=schemas
    )


_SWITCHES = ("atomic", "cleanup_on_fail", "create_namespace", "lint", "wait", "wait_for_jobs")


class _Maker:
    """Makes the protocol's messages."""

    def __init__(self, protos: Any) -> None:
        self._schema = protos.Schema

    def leaf(self, name: str, type_: str = _STRING, **kind: bool) -> Any:
        """An attribute of a type, as JSON."""
        return self._schema.Attribute(name=name, type=type_.encode(), **kind)

    def nested(self, name: str, nesting: str, attributes: list[Any], **kind: bool) -> Any:
        """An attribute that is an object, or a list of objects."""
        mode = self._schema.Object.NestingMode.Value(nesting)
        nested = self._schema.Object(attributes=attributes, nesting=mode)
        return self._schema.Attribute(name=name, nested_type=nested, **kind)

    def schema(self, attributes: list[Any]) -> Any:
        """A schema of attributes."""
        return self._schema(block=self._schema.Block(attributes=attributes))
