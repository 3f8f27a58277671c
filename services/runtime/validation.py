"""The rules that stand in the protos, checked before a handler sees a request."""

from __future__ import annotations

from typing import Any

import protovalidate
from google.protobuf.message import Message

from services.runtime.errors import AppError, Reason, Violation


class Malformed:
    """What a deserializer gives for bytes that are no message; see `checked`."""


MALFORMED = Malformed()


def checked(request: Any) -> Any:
    """The request itself, or AppError MALFORMED_REQUEST or INVALID_REQUEST."""
    if request is MALFORMED:
        raise AppError(Reason.MALFORMED_REQUEST, "the bytes are no message of this type")
    if isinstance(request, Message):
        violations = protovalidate.collect_violations(request)
        if violations:
            fields = [Violation(_path(v), str(v.proto.message)) for v in violations]
            raise AppError(Reason.INVALID_REQUEST, "the request is not valid", violations=fields)
    return request


def _path(violation: Any) -> str:
    """`messages[2].text` for a violation's field path."""
    parts = []
    for element in violation.proto.field.elements if violation.proto.field else ():
        index = _subscript(element)
        parts.append(f"{element.field_name}[{index}]" if index is not None else element.field_name)
    return ".".join(parts)


def _subscript(element: Any) -> str | None:
    """The index or map key of a path element, if it has one."""
    subscript = getattr(element, "subscript", None)
    value = getattr(subscript, "value", None)
    return None if value is None else str(value)
