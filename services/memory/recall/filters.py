"""What narrows a recall: the same conditions for the index, for SQL and for plain objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.memory.recall.types import Candidate, Kind


@dataclass(frozen=True, slots=True)
class MemoryFilter:
    """Conditions that a memory must meet, all of them; unset ones do not narrow.

    Attributes:
        since: Said at this moment or after.
        until: Said before this moment.
        conversation_id: Said in this conversation.
        speaker: Said by exactly this name.
        kinds: Of one of these kinds.
        metadata: Holding all of these values.

    """

    since: datetime | None = None
    until: datetime | None = None
    conversation_id: str | None = None
    speaker: str | None = None
    kinds: frozenset[Kind] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def admits(self, candidate: Candidate) -> bool:
        """Return whether ``candidate`` meets every condition."""
        return (
            (self.since is None or candidate.time >= self.since)
            and (self.until is None or candidate.time < self.until)
            and (self.conversation_id in (None, candidate.conversation_id))
            and (self.speaker in (None, candidate.speaker))
            and (not self.kinds or candidate.kind in self.kinds)
            and all(candidate.metadata.get(key) == value for key, value in self.metadata.items())
        )
