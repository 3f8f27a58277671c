"""What a failed call to the index means to the memory service."""

from __future__ import annotations

import grpc

from services.runtime.errors import AppError, Reason, unavailable
from services.runtime.logs import get_logger

_REFUSALS = frozenset(
    (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)
"""Answers of an index that is there: trying again as before will not help."""


_CLOSED_DOORS = frozenset((grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED))
"""A wrong key is put right by an operator, not by the jobs that wait for it."""


def index_failed(error: grpc.RpcError) -> AppError:
    """Return UNAVAILABLE for an index that is away and INTERNAL for one that refused the call.

    The engine's own text goes to the log only: it may quote what was stored.
    """
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    if code in _CLOSED_DOORS:
        get_logger().error("index_refuses_our_key", code=code.name)
    if code not in _REFUSALS:
        return unavailable("index")
    get_logger().error("index_refused", code=code.name, detail=str(error.details())[:500])
    return AppError(Reason.INTERNAL, "the index refused a call", metadata={"dependency": "index"})
