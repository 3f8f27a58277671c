"""Rows that recall keeps: checked against the table, told apart by owner, bounded."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.memory.model import Head, Memory, Owner, Remembered, Vector
from services.memory.postgres.candidates import LIFETIME_S, RowCache

NOW = datetime(2026, 5, 8, tzinfo=UTC)
ALICE, BOB, EVE = Owner("acme", "alice"), Owner("acme", "bob"), Owner("evil", "alice")
MODEL = "m1"


def row(text: str = "I have a cat.") -> Remembered:
    """A row that is embedded and indexed."""
    memory = Memory(
        memory_id=uuid.uuid4(), version=1, kind="episodic", text=text, speaker="Alice",
        role="user", said_at=NOW, metadata={}, message_id=None, conversation_id="c", seq=1,
        created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return Remembered(memory, {"cat": 1}, 1, Vector(MODEL, 1, 2, b"1234", b"12"))


def head(of: Remembered, **changes: object) -> Head:
    """What the table says of a row."""
    memory = of.memory
    same = Head(memory.memory_id, (memory.version, memory.updated_at), of.indexed_version, False)
    return replace(same, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("asker", [BOB, EVE])
def test_a_kept_row_is_its_owners_alone(asker: Owner) -> None:
    """Not another user's of the tenant, not the user's of the same name in another tenant."""
    cache, kept = RowCache(), row()
    cache.keep(ALICE, MODEL, [kept])

    assert cache.get(ALICE, MODEL, head(kept)) is kept
    assert cache.get(asker, MODEL, head(kept)) is None
    assert cache.get(ALICE, "m2", head(kept)) is None


def test_a_row_that_has_changed_in_the_table_is_read_again() -> None:
    """By its number, or by the time it was changed where a restored database counts anew."""
    cache, kept = RowCache(), row()
    cache.keep(ALICE, MODEL, [kept])

    assert cache.get(ALICE, MODEL, head(kept, version=(2, NOW))) is None
    assert cache.get(ALICE, MODEL, head(kept, version=(1, NOW + timedelta(seconds=1)))) is None


def test_whether_a_kept_row_is_indexed_is_what_the_table_says_now() -> None:
    """It becomes so without a new version."""
    cache, kept = RowCache(), row()
    cache.keep(ALICE, MODEL, [replace(kept, indexed_version=0)])

    assert cache.get(ALICE, MODEL, head(kept)) == kept


def test_a_row_without_its_vector_is_kept_until_the_index_has_it() -> None:
    """The vector comes without a new version, and recall must see it then."""
    cache, bare = RowCache(), replace(row(), vector=None, indexed_version=0)
    cache.keep(ALICE, MODEL, [bare])

    assert cache.get(ALICE, MODEL, head(bare)) is bare
    assert cache.get(ALICE, MODEL, head(bare, indexed_version=1)) is None


def test_what_an_owner_changed_or_erased_is_let_go_at_once() -> None:
    """Under every model; other owners' rows stay."""
    cache, erased, other = RowCache(), row(), row()
    for model in (MODEL, "m2"):
        cache.keep(ALICE, model, [erased])
    cache.keep(EVE, MODEL, [other])
    cache.forget(ALICE)

    assert [cache.get(ALICE, model, head(erased)) for model in (MODEL, "m2")] == [None, None]
    assert cache.get(EVE, MODEL, head(other)) is other


def test_kept_rows_are_bounded_in_bytes_and_age() -> None:
    """The oldest shelf makes room; one that is too old goes, and nothing is counted twice."""
    now = 0.0
    cache, rows = RowCache(max_bytes=80_000, monotonic=lambda: now), [row("x" * 8_000), row()]
    cache.keep(ALICE, MODEL, rows)
    size = cache.size_bytes
    cache.keep(ALICE, MODEL, rows)
    assert cache.size_bytes == size
    cache.keep(BOB, MODEL, [row("y" * 8_000), row("z" * 8_000)])
    assert cache.get(ALICE, MODEL, head(rows[0])) is None
    assert 0 < cache.size_bytes <= 80_000
    now = LIFETIME_S + 1
    cache.keep(ALICE, MODEL, [])
    assert cache.size_bytes == 0
