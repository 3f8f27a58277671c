"""A reply's tool calls as metadata of the stored reply, so that a replay can send them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from services.routing.domain import ToolCall
from services.runtime.errors import AppError, Reason

# What one metadata value holds, and how many of the 32 pairs are used (16 kB altogether).
VALUE_CHARS = 512
MAX_VALUES = 32
_KEY = "tool_calls."


def pack(calls: Sequence[ToolCall]) -> dict[str, str]:
    """Return `calls` as metadata; nothing if there are none or they are too large to keep."""
    if not calls:
        return {}
    text = json.dumps([[call.id, call.name, call.arguments_json] for call in calls])
    parts = [text[at : at + VALUE_CHARS] for at in range(0, len(text), VALUE_CHARS)]
    if len(parts) > MAX_VALUES:
        return {}
    return {f"{_KEY}{number:02d}": part for number, part in enumerate(parts)}


def unpack(metadata: Mapping[str, str]) -> list[ToolCall]:
    """Return the calls of a stored reply; NOT_SUPPORTED if they were too large to keep."""
    text = "".join(metadata[key] for key in sorted(metadata) if key.startswith(_KEY))
    if not text:
        raise AppError(
            Reason.NOT_SUPPORTED,
            "this reply's tool calls were too large to be kept; ask again with a new request_id",
            metadata={"feature": "replay of large tool calls"},
        )
    return [ToolCall(*fields) for fields in json.loads(text)]
