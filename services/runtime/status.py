"""The one map between our reasons and gRPC's status codes, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.runtime.errors import AppError, Reason, Violation

DOMAIN = "echomesh"
DETAILS_KEY = "grpc-status-details-bin"
# Details travel as metadata, of which gRPC refuses more than 8 KiB: the first violations must do.
MAX_VIOLATION_BYTES = 4096
_MAX_VIOLATION_CHARS = 256
_Detail = TypeVar("_Detail", bound=Message)
_C = grpc.StatusCode

CODES: dict[Reason, grpc.StatusCode] = {
    Reason.INTERNAL: _C.INTERNAL,
    Reason.INVALID_REQUEST: _C.INVALID_ARGUMENT,
    Reason.MALFORMED_REQUEST: _C.INVALID_ARGUMENT,
    Reason.INVALID_PAGE_TOKEN: _C.INVALID_ARGUMENT,
    Reason.NOT_SUPPORTED: _C.UNIMPLEMENTED,
    Reason.MODEL_LACKS_ABILITY: _C.FAILED_PRECONDITION,
    Reason.TOKEN_MISSING: _C.UNAUTHENTICATED,
    Reason.TOKEN_INVALID: _C.UNAUTHENTICATED,
    Reason.TOKEN_EXPIRED: _C.UNAUTHENTICATED,
    Reason.REFRESH_TOKEN_REUSED: _C.UNAUTHENTICATED,
    Reason.CREDENTIALS_INVALID: _C.UNAUTHENTICATED,
    Reason.CALLER_INVALID: _C.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: _C.PERMISSION_DENIED,
    Reason.LOGIN_RATE_LIMITED: _C.RESOURCE_EXHAUSTED,
    Reason.NOT_FOUND: _C.NOT_FOUND,
    Reason.ALREADY_EXISTS: _C.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: _C.ALREADY_EXISTS,
    Reason.VERSION_CONFLICT: _C.ABORTED,
    Reason.TURN_SUPERSEDED: _C.ABORTED,
    Reason.OVERLOADED: _C.RESOURCE_EXHAUSTED,
    Reason.MESSAGE_TOO_LARGE: _C.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXCEEDED: _C.DEADLINE_EXCEEDED,
    Reason.CANCELLED: _C.CANCELLED,
    Reason.DEPENDENCY_UNAVAILABLE: _C.UNAVAILABLE,
    Reason.DRAINING: _C.UNAVAILABLE,
    Reason.STORAGE_FULL: _C.RESOURCE_EXHAUSTED,
    Reason.MODEL_UNAVAILABLE: _C.UNAVAILABLE,
    Reason.MODEL_BAD_RESPONSE: _C.UNAVAILABLE,
    Reason.CONTEXT_TOO_LONG: _C.INVALID_ARGUMENT,
    Reason.MODEL_REFUSED: _C.FAILED_PRECONDITION,
}

# What an error without our details means: gRPC itself made it. A caller who cancels is not told, so
# CANCELLED is how a server ends what reaches it as it stops.
_BARE: dict[grpc.StatusCode, Reason] = {
    _C.CANCELLED: Reason.DEPENDENCY_UNAVAILABLE,
    _C.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    _C.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    _C.UNAVAILABLE: Reason.DEPENDENCY_UNAVAILABLE,
}


def to_status(error: AppError, trace_id: str) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of an error, with its details and the trace id."""
    code = CODES[error.reason]
    status = status_pb2.Status(code=code.value[0], message=error.message)
    _add(
        status,
        error_details_pb2.ErrorInfo(
            reason=error.reason.value, domain=DOMAIN, metadata=dict(error.metadata)
        ),
    )
    if error.violations:
        _add(status, _bad_request(error.violations))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    _add(status, error_details_pb2.RequestInfo(request_id=trace_id))
    return code, status


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """As many of the violations, in order, as fit beside the other details."""
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        bad.field_violations.add(
            field=violation.field[:_MAX_VIOLATION_CHARS],
            description=violation.description[:_MAX_VIOLATION_CHARS],
        )
        if bad.ByteSize() > MAX_VIOLATION_BYTES:
            del bad.field_violations[-1]
            break
    return bad


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> AppError:
    """The error that a call to `service` failed with."""
    status = _status_of(error)
    info = _find(status, error_details_pb2.ErrorInfo())
    if info is None or info.domain != DOMAIN:
        return _bare(error, service)
    if info.reason == Reason.CALLER_INVALID:
        return _refused_us(service)
    bad = _find(status, error_details_pb2.BadRequest())
    retry = _find(status, error_details_pb2.RetryInfo())
    return AppError(
        _reason(info.reason),
        status.message,
        metadata=dict(info.metadata),
        violations=[Violation(v.field, v.description) for v in bad.field_violations] if bad else (),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
    )


def _bare(error: grpc.aio.AioRpcError, service: str) -> AppError:
    reason = _BARE.get(error.code(), Reason.INTERNAL)
    retry_after_s = 1.0 if CODES[reason] in {_C.UNAVAILABLE, _C.RESOURCE_EXHAUSTED} else None
    metadata = {"dependency": service}
    text = f"{service}: {error.code().name.lower().replace('_', ' ')}"
    return AppError(reason, text, metadata=metadata, retry_after_s=retry_after_s)


def _refused_us(service: str) -> AppError:
    """Not the user's fault: a service that does not take our assertion is as good as away."""
    return AppError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"{service} does not accept this service: their clocks, trust keys or certificates differ",
        metadata={"dependency": service},
        retry_after_s=1.0,
    )


def _reason(name: str) -> Reason:
    """A reason newer than this code is treated as a defect of the other side."""
    return Reason(name) if name in Reason.__members__ else Reason.INTERNAL


def _add(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _find(status: status_pb2.Status, into: _Detail) -> _Detail | None:
    for detail in status.details:
        if detail.Is(into.DESCRIPTOR):
            detail.Unpack(into)
            return into
    return None
