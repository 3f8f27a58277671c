"""The access policy of each RPC, read from its method option; none means refused."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default as default_pool

from echomesh.common.v1.options_pb2 import (
    ACCESS_ADMIN,
    ACCESS_APP,
    ACCESS_OPERATOR,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_UNSPECIFIED,
    ACCESS_USER,
    Policy,
    policy,
)
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity

# The role that a policy asks for; ACCESS_USER asks for none.
_ROLE: dict[int, str] = {ACCESS_APP: "app", ACCESS_ADMIN: "admin", ACCESS_OPERATOR: "operator"}
# Protocols of gRPC itself, which carry no option of ours; they hold no user's data.
_OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})
_DEBUG_SERVICES = frozenset(
    {
        "grpc.channelz.v1.Channelz",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)


@dataclass(frozen=True)
class Rule:
    """What a method asks of its caller. `access` is a value of common.v1.Access."""

    access: int
    callers: frozenset[str] = frozenset()
    subject_optional: bool = False

    @property
    def public(self) -> bool:
        """Whether the method may be called without a token."""
        return self.access == ACCESS_PUBLIC

    @property
    def internal(self) -> bool:
        """Whether only services of the mesh may call."""
        return self.access == ACCESS_SERVICE


_DENIED = Rule(ACCESS_UNSPECIFIED)


def find_method(path: str) -> MethodDescriptor | None:
    """The descriptor of "/package.Service/Method", if its proto is loaded."""
    service, _, method = path.lstrip("/").partition("/")
    try:
        descriptor = default_pool().FindServiceByName(service)
    except KeyError:
        return None
    return descriptor.methods_by_name.get(method)


def rule_for(path: str, *, debug: bool = False) -> Rule:
    """The rule of a method; a method without a policy is denied to everyone."""
    service = path.lstrip("/").partition("/")[0]
    if service in _OPEN_SERVICES or (debug and service in _DEBUG_SERVICES):
        return Rule(ACCESS_PUBLIC)
    method = find_method(path)
    if method is None:
        return _DENIED
    found: Policy = method.GetOptions().Extensions[policy]
    return Rule(found.access, frozenset(found.callers), found.subject_optional)


def check_subject(rule: Rule, identity: Identity) -> None:
    """Raise AppError PERMISSION_DENIED unless the subject's roles suffice."""
    role = _ROLE.get(rule.access)
    if rule.access != ACCESS_USER and (role is None or role not in identity.roles):
        raise AppError(Reason.PERMISSION_DENIED, "your roles do not allow this")


def check_caller(rule: Rule, caller: str | None) -> None:
    """Raise AppError unless this service of the mesh may call."""
    if caller is None:
        raise AppError(Reason.CALLER_INVALID, "this call is for services of the mesh")
    if rule.callers and caller not in rule.callers:
        raise AppError(Reason.PERMISSION_DENIED, f"{caller} may not call this")
