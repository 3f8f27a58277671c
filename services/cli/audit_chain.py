"""Checks an audit log's chain: every hash computed anew, every number there. Pure.

What a change in the database does to the chain:

    an entry edited             its hash does not fit any more
    an entry deleted, moved     a number is missing, and the next entry's `previous_hash` is wrong
    the end cut off             an anchor names an entry that is not there
    all hashes computed anew    an anchor's hash is not the entry's

The last two are seen with anchors alone: hashes that were taken away from the database in time.

A chain may begin after entries that were archived, if one of its own entries says so.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from echomesh import AuditAnchor, AuditEntry
from services.auth.actions import Action

ARCHIVE = str(Action.AUDIT_ARCHIVE)
"""The action of an entry that names the last one that was archived."""

FIRST_PREVIOUS = bytes(32)
"""What the first entry has for the hash before it."""

_FORM = b"echomesh-audit-1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a chain, at the entry of a number."""

    seq: int
    text: str


def entry_hash(entry: AuditEntry) -> bytes:
    """The hash that an entry must have: SHA-256 over its fields, each after its length."""
    fields = (
        _FORM,
        entry.previous_hash,
        entry.log.encode(),
        entry.tenant_id.encode(),
        _int8(entry.seq),
        _int8((entry.time - _EPOCH) // _MICROSECOND),
        entry.actor.encode(),
        entry.action.encode(),
        entry.target.encode(),
        entry.outcome.encode(),
        entry.details_json.encode(),
    )
    framed = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return hashlib.sha256(framed).digest()


class ChainCheck:
    """Checks the chain of one log and tenant, entry by entry, so that it may be long."""

    def __init__(self, log: str, anchors: Iterable[AuditAnchor]) -> None:
        """Take the log's name and anchors, of which those of this chain are used."""
        self.problems: list[Problem] = []
        self.seq = 0
        self.count = 0
        self.anchors_held = 0
        self.anchors_archived = 0
        self.last: AuditEntry | None = None
        self._log = log
        self._hash = FIRST_PREVIOUS
        # Number and hash of the last entry before the first one here.
        self._archived = (0, FIRST_PREVIOUS)
        self._told = False
        self._anchors: defaultdict[tuple[str, int], set[bytes]] = defaultdict(set)
        for anchor in anchors:
            if anchor.log == log and anchor.seq > 0:
                self._anchors[anchor.tenant_id, anchor.seq].add(anchor.hash)

    @property
    def archived(self) -> int:
        """How many entries of the chain came before the first one that was taken."""
        return self._archived[0]

    def take(self, entry: AuditEntry) -> None:
        """Check the next entry."""
        if self.last is None and entry.seq > 1:
            self._begin_after(entry)
        self._told = self._told or _archives(entry) == self._archived
        self.problems += [Problem(entry.seq, text) for text in self._wrong(entry)]
        self.seq, self._hash, self.last = entry.seq, entry.hash, entry
        self.count += 1

    def _begin_after(self, first: AuditEntry) -> None:
        """Begin at a later entry than the first; the last archived one has a hash, and anchors."""
        self.seq, self._hash = first.seq - 1, first.previous_hash
        self._archived = self.seq, self._hash
        for tenant_id, seq in [*self._anchors]:
            if tenant_id == first.tenant_id and seq < self.seq:
                self.anchors_archived += len(self._anchors.pop((tenant_id, seq)))
        texts = self._compare(first.tenant_id, self.seq, self._hash)
        self.problems += [Problem(self.seq, text) for text in texts]

    def end(self) -> None:
        """Check what is told of entries that did not come: by anchors, and of archived ones."""
        if self.archived and not self._told:
            text = (
                f"entries 1 to {self.archived} are missing, and none says that they were archived"
            )
            self.problems.append(Problem(1, text))
        tenant_id = self.last.tenant_id if self.last else None
        for tenant, seq in sorted(self._anchors):
            if tenant_id in (None, tenant):
                self.problems.append(
                    Problem(seq, "an anchor names this entry, and it is not there: cut off")
                )

    def _wrong(self, entry: AuditEntry) -> Iterator[str]:
        if entry.log != self._log or (self.last and entry.tenant_id != self.last.tenant_id):
            yield "the entry belongs to another chain"
        if entry.seq != self.seq + 1:
            yield f"after entry {self.seq} comes {entry.seq}: deleted or moved"
        if entry.previous_hash != self._hash:
            yield "it does not follow from the entry before: deleted, moved or edited"
        if entry.hash != entry_hash(entry):
            yield "its hash does not fit what it says: edited"
        yield from self._compare(entry.tenant_id, entry.seq, entry.hash)

    def _compare(self, tenant_id: str, seq: int, digest: bytes) -> Iterator[str]:
        """Compare an entry's hash with those that anchors have for it."""
        for known in self._anchors.pop((tenant_id, seq), ()):
            if known == digest:
                self.anchors_held += 1
            else:
                yield "an anchor has another hash: the chain was written anew"


def _archives(entry: AuditEntry) -> tuple[int, bytes] | None:
    """Number and hash of the last entry that was archived, if an entry tells of that."""
    if entry.action != ARCHIVE:
        return None
    try:
        told = json.loads(entry.details_json)
        return int(told["through"]), bytes.fromhex(told["hash"])
    except (ValueError, KeyError, TypeError):
        return None


def _int8(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)
