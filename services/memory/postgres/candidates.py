"""What recall scores, read with as little as can be: rows kept from before are checked, not read.

A row is a few kilobytes of text, terms and vectors, and recall needs hundreds for every question,
mostly the same ones as for the last. So rows are kept for a while, under their owner and model;
each time Postgres says, under the owner's rights, which of them still live and in which version.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from services.memory.model import Head, Owner, Remembered
from services.memory.postgres import searching
from services.memory.recall import MemoryFilter
from services.memory.recall.types import KEPT_PER_CHAR
from services.runtime.postgres import Connection

MAX_BYTES = 64 * 2**20
"""About seven thousand rows: the candidates of some thirty people who talk at once."""

LIFETIME_S = 300.0
"""A kept row is let go after this long, so that the text of one erased elsewhere does not stay."""

SWEEP_S = 30.0
"""How often to look for rows that nobody asks for any more."""

_ROW_BYTES, _TERM_BYTES = 2_500, 100
"""What a row and each of its terms take as objects, about."""


@dataclass(slots=True)
class _Shelf:
    """The kept rows of one owner under one model."""

    born_at: float
    rows: dict[UUID, Remembered] = field(default_factory=dict)
    size_bytes: int = 0


class RowCache:
    """Rows by owner and model, bounded in bytes and age; the oldest shelf goes first."""

    def __init__(
        self, max_bytes: int = MAX_BYTES, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._shelves: OrderedDict[tuple[str, str, str], _Shelf] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What the kept rows take, about."""
        return self._size_bytes

    def get(self, owner: Owner, model: str, head: Head) -> Remembered | None:
        """Return the kept row that ``head`` tells of, if it is kept in that very version."""
        shelf = self._shelves.get((owner.tenant_id, owner.user_id, model))
        if shelf is None:
            return None
        row = shelf.rows.get(head.memory_id)
        if row is None or (row.memory.version, row.memory.updated_at) != head.version:
            return None
        if model and row.vector is None and head.indexed_version == row.memory.version:
            return None  # the vector came without a new version
        if row.indexed_version == head.indexed_version:
            return row
        now = replace(row, indexed_version=head.indexed_version)
        shelf.rows[head.memory_id] = now
        return now

    def keep(self, owner: Owner, model: str, rows: Iterable[Remembered]) -> None:
        """Keep rows; one without its vector under ``model`` counts until the index has it."""
        shelf = self._shelves.setdefault(
            (owner.tenant_id, owner.user_id, model), _Shelf(self._monotonic())
        )
        for row in rows:
            self._put(shelf, row)
        self.shrink()

    def forget(self, owner: Owner) -> None:
        """Let all rows of an owner go: some were changed or erased."""
        for key in [key for key in self._shelves if key[:2] == (owner.tenant_id, owner.user_id)]:
            self._drop(key)

    def _put(self, shelf: _Shelf, row: Remembered) -> None:
        old = shelf.rows.get(row.memory.memory_id)
        added = _size(row) - (_size(old) if old else 0)
        shelf.rows[row.memory.memory_id] = row
        shelf.size_bytes += added
        self._size_bytes += added

    def shrink(self) -> None:
        """Drop shelves, the oldest first, until the rest is young enough and fits."""
        too_old = self._monotonic() - LIFETIME_S
        while self._shelves:
            key, oldest = next(iter(self._shelves.items()))
            if oldest.born_at > too_old and self._size_bytes <= self._max_bytes:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str, str]) -> None:
        self._size_bytes -= self._shelves.pop(key).size_bytes


def _size(row: Remembered) -> int:
    vector = row.vector
    # The vector's fp16 is kept a second time as float32.
    packed = 3 * len(vector.vector) + len(vector.token_vectors or b"") if vector else 0
    text = (1 + KEPT_PER_CHAR) * len(row.memory.text)
    return _ROW_BYTES + _TERM_BYTES * len(row.terms) + text + packed


async def read(
    conn: Connection,
    kept: RowCache,
    owner: Owner,
    model: str,
    memory_ids: Sequence[UUID],
    narrowed: MemoryFilter,
    pending_limit: int,
) -> tuple[list[Remembered], list[Remembered], list[Remembered]]:
    """Return the live rows of ``memory_ids``, the pending rows, and the turns after both."""
    heads = await searching.heads(conn, owner, memory_ids, narrowed, pending_limit)
    rows = await _rows(conn, kept, owner, model, heads)
    waiting = {head.memory_id for head in heads if head.pending}
    named = {head.memory_id for head in heads if not head.pending and not head.after}
    found = [row for memory_id, row in rows.items() if memory_id in named]
    pending = [row for memory_id, row in rows.items() if memory_id in waiting]
    others = rows.keys() - named - waiting
    return found, pending, [row for memory_id, row in rows.items() if memory_id in others]


async def _rows(
    conn: Connection, kept: RowCache, owner: Owner, model: str, heads: Sequence[Head]
) -> dict[UUID, Remembered]:
    """Return the rows by id: those kept in the version of their head, the others from the table."""
    rows: dict[UUID, Remembered] = {}
    missing: list[UUID] = []
    for head in heads:
        row = kept.get(owner, model, head)
        if row is None:
            missing.append(head.memory_id)
        else:
            rows[head.memory_id] = row
    if missing:
        fresh = await searching.by_id(conn, owner, model, missing)
        kept.keep(owner, model, fresh)
        rows |= {row.memory.memory_id: row for row in fresh}
    return rows
