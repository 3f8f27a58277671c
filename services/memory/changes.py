"""What an update request asks for: its mask and fields checked, as a change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from echomesh.memory.v1 import memory_pb2 as pb
from services.memory import convert, ids
from services.memory.model import MemoryChange
from services.runtime.errors import invalid

MASK_PATHS = frozenset({"text", "kind", "time", "metadata"})
"""What may be corrected; who said it and where stays."""

MAX_TEXT_BYTES = 32_768
MAX_METADATA_PAIRS = 32
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_VALUE_CHARS = 512


def check_distinct(request_ids: Sequence[str]) -> None:
    """Refuse a batch that uses one request_id for two memories."""
    if len(set(request_ids)) != len(request_ids):
        raise invalid("memories", "every memory needs a request_id of its own")


def from_request(request: pb.UpdateMemoryRequest, now: datetime) -> MemoryChange:
    """Return the change that ``request`` asks for; raises INVALID_REQUEST."""
    paths = set(request.update_mask.paths)
    if not paths or not paths <= MASK_PATHS:
        raise invalid("update_mask", "must name some of text, kind, time, metadata")
    fields = _fields(request.memory, paths)
    body = [request.memory.id, request.expected_version, *sorted(fields.items())]
    return MemoryChange(
        request_id=request.request_id,
        body_sha256=ids.body_hash({"change": body}),
        memory_id=convert.uuid(request.memory.id, "memory.id"),
        expected_version=request.expected_version,
        now=now,
        **fields,
    )


def _fields(memory: pb.Memory, paths: set[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "text" in paths:
        fields["text"] = _text(memory.text)
    if "kind" in paths:
        if not memory.kind:
            raise invalid("memory.kind", "must be set to be updated")
        fields["kind"] = convert.kind(memory.kind, "fact")
    if "time" in paths:
        said_at = convert.optional_time(memory, "time")
        if said_at is None:
            raise invalid("memory.time", "must be set to be updated")
        fields["said_at"] = said_at
    if "metadata" in paths:
        fields["metadata"] = _metadata(dict(memory.metadata))
    return fields


def _text(text: str) -> str:
    if not 0 < len(text.encode()) <= MAX_TEXT_BYTES:
        raise invalid("memory.text", f"must have 1 to {MAX_TEXT_BYTES} bytes")
    return text


def _metadata(pairs: dict[str, str]) -> dict[str, str]:
    fits = len(pairs) <= MAX_METADATA_PAIRS and all(
        0 < len(key) <= MAX_METADATA_KEY_CHARS and len(value) <= MAX_METADATA_VALUE_CHARS
        for key, value in pairs.items()
    )
    if not fits:
        raise invalid(
            "memory.metadata",
            f"must have at most {MAX_METADATA_PAIRS} pairs, keys of 1 to "
            f"{MAX_METADATA_KEY_CHARS} and values of at most {MAX_METADATA_VALUE_CHARS} characters",
        )
    return pairs
