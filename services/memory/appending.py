"""Which messages of an append are new, stored before, or come under a used request id. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.memory.model import NewMessage


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What is known of a message stored before.

    ``body_sha256`` is None once it was erased, and for one that release 1 stored; then ``text``
    tells, which is empty if it was erased.
    """

    message_id: UUID
    body_sha256: bytes | None
    text: str | None = None

    def is_from(self, new: NewMessage) -> bool:
        """Whether ``new`` is the message that was stored; an erased one is given the benefit."""
        if self.body_sha256 is not None:
            return self.body_sha256 == new.body_sha256
        return self.text in ("", new.text)


@dataclass(frozen=True, slots=True)
class Sorted:
    """What to store, and the id of each message of the request; None for a refused one."""

    fresh: Sequence[NewMessage]
    ids: Sequence[UUID | None]

    @property
    def refused(self) -> list[int]:
        """Places in the request, from 0, of messages whose request id has another body."""
        return [place for place, message_id in enumerate(self.ids) if message_id is None]


def sort_out(new: Sequence[NewMessage], stored: Mapping[str, StoredMessage]) -> Sorted:
    """Sort the messages of an append by what is ``stored`` under their request ids.

    Of several under one request id in the same append the first one counts.
    """
    known = dict(stored)
    fresh: list[NewMessage] = []
    ids: list[UUID | None] = []
    for message in new:
        before = known.get(message.request_id)
        if before is None:
            before = StoredMessage(message.message_id, message.body_sha256, message.text)
            known[message.request_id] = before
            fresh.append(message)
        ids.append(before.message_id if before.is_from(message) else None)
    return Sorted(fresh, ids)
