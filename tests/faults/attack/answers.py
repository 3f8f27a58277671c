"""What an attacked mesh may answer: our own statuses, and no text of Python's or of others'."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from services.runtime.errors import Reason
from services.runtime.status import CODES, DETAILS_KEY, DOMAIN

# A defect's name, a stack, a path, an object's repr, SQL: none of them is meant for a client.
INNER_TEXT = re.compile(
    r"Traceback|File \"|\.py\b|\b[A-Z][A-Za-z]+(?:Error|Exception|Warning)\b| object at 0x"
    r"|<class |\bNoneType\b|/(?:usr|home|root|tmp|work|var|proc|opt)/|site-packages|asyncpg"
    r"|\bselect .+ from |violates .+ constraint|invalid byte sequence|codec can't"
)
_NEVER = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}


@dataclass(frozen=True)
class Answer:
    """How one call ended. `body` holds the answer's messages as bytes."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = ""
    details: status_pb2.Status = field(default_factory=status_pb2.Status)
    body: bytes = b""

    @property
    def text(self) -> str:
        """All text of the status, for a human to read and a test to search."""
        return f"{self.message}\n{_details_text(self.details)}"


async def answer_of(call: Any) -> Answer:
    """Wait for a raw call, unary or streaming, and return how it ended."""
    parts: list[bytes] = []
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            parts.append(await call)
        else:
            async for part in call:
                parts.append(part)
    except grpc.aio.AioRpcError as error:
        return _refusal(error, b"".join(parts))
    finally:
        call.cancel()
    return Answer(grpc.StatusCode.OK, body=b"".join(parts))


def _refusal(error: grpc.aio.AioRpcError, body: bytes) -> Answer:
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
    info = error_details_pb2.ErrorInfo()
    reason = next((info.reason for d in status.details if d.Unpack(info)), "")
    return Answer(error.code(), reason, error.details() or "", status, body)


def defects(answer: Answer) -> list[str]:
    """What is wrong with an answer; empty if it is one that the contract knows."""
    if answer.code is grpc.StatusCode.OK:
        return []
    found = []
    if answer.code in _NEVER:
        found.append(f"status {answer.code.name}")
    if answer.reason not in Reason.__members__:
        found.append(f"{answer.code.name} without our ErrorInfo")
    elif CODES[Reason(answer.reason)] is not answer.code:
        found.append(f"{answer.reason} with status {answer.code.name}")
    inner = INNER_TEXT.search(answer.text)
    if inner:
        found.append(f"inner text {inner[0]!r}")
    return [f"{defect}: {answer.message!r}" for defect in found]


def _details_text(status: status_pb2.Status) -> str:
    """The strings of the known details, without the random trace id."""
    lines = [status.message]
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            lines += [info.reason, info.domain if info.domain != DOMAIN else ""]
            lines += [f"{key}={value}" for key, value in info.metadata.items()]
        elif detail.Unpack(bad):
            lines += [f"{v.field}: {v.description}" for v in bad.field_violations]
    return "\n".join(lines)
