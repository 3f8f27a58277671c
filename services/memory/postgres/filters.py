"""A recall filter as SQL conditions with numbered parameters."""

from __future__ import annotations

import json
from typing import Any

from services.memory.recall import MemoryFilter


def filter_sql(narrowed: MemoryFilter, *, first: int) -> tuple[str, list[Any]]:
    """Return ``" AND ..."`` conditions over ``memories m`` and their values.

    ``first`` is the number of the first parameter. An unset field gives no condition.
    """
    metadata = json.dumps(dict(narrowed.metadata)) if narrowed.metadata else None
    wanted: list[tuple[str, Any]] = [
        ("m.said_at >= ${}", narrowed.since),
        ("m.said_at < ${}", narrowed.until),
        ("m.conversation_id = ${}", narrowed.conversation_id),
        ("m.speaker = ${}", narrowed.speaker),
        ("m.kind = ANY(${}::text[])", sorted(narrowed.kinds) or None),
        ("m.metadata @> ${}::jsonb", metadata),
    ]
    used = [(condition, value) for condition, value in wanted if value is not None]
    parts = [condition.format(first + i) for i, (condition, _) in enumerate(used)]
    return "".join(f" AND {part}" for part in parts), [value for _, value in used]
