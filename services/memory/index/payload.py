"""What a point carries beside its vectors, and the conditions on it, in terms of no engine.

Metadata is kept as ``key<US>value`` strings in one list, so that any key works in any engine and
one payload index serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.memory.index.types import IndexPoint
from services.memory.recall.filters import MemoryFilter

DENSE = "dense"
SPARSE = "sparse"
"""Names of the two vectors of a point."""

KEYWORD_FIELDS = ("tenant_id", "conversation_id", "speaker", "kind", "metadata")
USER_FIELD = "user_id"
TIME_FIELD = "time_us"
"""What is indexed: keywords, the user (points of one user lie together), and the time."""

FORMAT = 1
"""Raised when points change shape: an index of another format is made anew."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Matches:
    """The field (or one element of it) is one of these values."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """``low <= field < high``; ``None`` is open."""

    key: str
    low: int | None
    high: int | None


Condition = Matches | Between


def microseconds(time: datetime) -> int:
    """Return ``time`` as whole microseconds since 1970, UTC."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds_since_1970: int) -> datetime:
    """Return the inverse of :func:`microseconds`."""
    return _EPOCH + timedelta(microseconds=microseconds_since_1970)


def payload_of(point: IndexPoint) -> dict[str, Any]:
    """Return what the engine stores beside the point's vectors."""
    return {
        "tenant_id": point.tenant_id,
        "user_id": point.user_id,
        "version": point.version,
        "conversation_id": point.conversation_id,
        "seq": point.seq,
        "speaker": point.speaker,
        "role": point.role,
        "kind": point.kind,
        "time_us": microseconds(point.time),
        "metadata": list(_pairs(point.metadata)),
    }


def require_owner(tenant_id: str, user_id: str) -> None:
    """Refuse to ask across users.

    Raises:
        ValueError: If tenant or user is empty.

    """
    if not tenant_id or not user_id:
        raise ValueError("an index query needs a tenant and a user")


def conditions(tenant_id: str, user_id: str, filters: MemoryFilter) -> list[Condition]:
    """Return what a point must meet; whose it is always comes first.

    Raises:
        ValueError: If tenant or user is empty: there is no search across users.

    """
    require_owner(tenant_id, user_id)
    owner: list[Condition] = [Matches(USER_FIELD, (user_id,)), Matches("tenant_id", (tenant_id,))]
    return owner + list(_narrowing(filters))


def _narrowing(filters: MemoryFilter) -> Iterator[Condition]:
    if filters.since is not None or filters.until is not None:
        low, high = (None if t is None else microseconds(t) for t in (filters.since, filters.until))
        yield Between(TIME_FIELD, low, high)
    if filters.conversation_id is not None:
        yield Matches("conversation_id", (filters.conversation_id,))
    if filters.speaker is not None:
        yield Matches("speaker", (filters.speaker,))
    if filters.kinds:
        yield Matches("kind", tuple(sorted(filters.kinds)))
    for pair in _pairs(filters.metadata):
        yield Matches("metadata", (pair,))


def _pairs(metadata: Mapping[str, str]) -> Iterator[str]:
    return (f"{key}{_UNIT_SEPARATOR}{value}" for key, value in metadata.items())
