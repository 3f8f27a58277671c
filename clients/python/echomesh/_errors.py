"""The one exception of this package, made from google.rpc.Status."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2, status_pb2

_STATUS_KEY = "grpc-status-details-bin"
_Detail = TypeVar("_Detail", bound=ProtoMessage)


@dataclass(frozen=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    description: str


@dataclass(eq=False)
class EchomeshError(Exception):
    """A call failed.

    `reason` names why (a value of ErrorReason without its prefix; empty if the mesh could not
    be reached at all), `retry_after` is in seconds, and `trace_id` finds the call in the logs, if
    it came so far.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[FieldViolation] = field(default_factory=list)
    retry_after: float | None = None
    trace_id: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is pickled by its positional arguments, of which a dataclass has none.
        return type(self), tuple(getattr(self, each.name) for each in fields(self))

    def __str__(self) -> str:
        detail = "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        text = f"{self.reason or self.code.name}: {self.message}"
        return f"{text} ({detail})" if detail else text


def closed() -> EchomeshError:
    """The error of a call whose client was closed, before it or under it."""
    return EchomeshError(grpc.StatusCode.CANCELLED, "the client is closed")


def from_rpc_error(error: grpc.aio.AioRpcError) -> EchomeshError:
    """Read the details of a failed call."""
    status = _status_of(error)
    info = _detail(status, error_details_pb2.ErrorInfo())
    bad = _detail(status, error_details_pb2.BadRequest())
    retry = _detail(status, error_details_pb2.RetryInfo())
    request = _detail(status, error_details_pb2.RequestInfo())
    return EchomeshError(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason if info else "",
        metadata=dict(info.metadata) if info else {},
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations]
        if bad
        else [],
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        trace_id=request.request_id if request else "",
    )


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _detail(status: status_pb2.Status, into: _Detail) -> _Detail | None:
    for detail in status.details:
        if detail.Is(into.DESCRIPTOR):
            detail.Unpack(into)
            return into
    return None
