"""Archives of an audit log: entries as lines of a file, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echomesh import AuditEntry
from services.cli.audit import read_anchor
from services.cli.audit_files import archive_line, read_archives, read_line
from services.cli.files import CommandError

NOON = datetime(2026, 11, 21, 12, 0, 0, 7, tzinfo=UTC)
TEXT = st.text(max_size=12)


def entry(seq: int, log: str = "auth", tenant_id: str = "t") -> AuditEntry:
    return AuditEntry(
        log, tenant_id, seq, NOON, "user:u", "a", "", "ok", "{}", bytes(32), bytes([seq] * 32)
    )


def written(path: Path, entries: Sequence[AuditEntry]) -> Path:
    path.write_text("".join(archive_line(each) + "\n" for each in entries), "utf-8")
    return path


@given(TEXT, TEXT, TEXT)
def test_an_entry_survives_being_written_and_read(actor: str, target: str, details: str) -> None:
    """Whatever it says, on one line; by whatever zone its time is told."""
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    told = replace(entry(3), time=there, actor=actor, target=target, details_json=details)
    line = archive_line(told)
    assert read_line(line) == told
    assert len(line.split("\n")) == 1


def test_a_line_is_an_anchor_too() -> None:
    found = read_anchor(archive_line(entry(3)))
    assert found is not None
    assert (found.seq, found.hash) == (3, entry(3).hash)


def test_archives_are_read_in_order_and_those_of_others_are_left_out(tmp_path: Path) -> None:
    """However they are named and given; an archiving that was cut short did some of them twice."""
    files = [
        written(tmp_path / "a", [entry(n) for n in (4, 5, 6)]),
        written(tmp_path / "b", [entry(n) for n in (1, 2)]),
        written(tmp_path / "c", [entry(n) for n in (1, 2, 3)]),
        written(tmp_path / "d", [entry(1, "memory"), entry(2, "memory")]),
        written(tmp_path / "e", [entry(1, tenant_id="other")]),
    ]
    assert [each.seq for each in read_archives(files, entry(6))] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("content", ["junk", "{}", '{"log": "auth"}', "[]", '{"hash": 1}'])
def test_a_file_that_is_no_archive_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(CommandError, match="x is no archive of an audit log"):
        list(read_archives([tmp_path / "x"], entry(9)))


def test_a_file_that_is_missing_or_empty_does_not_count_as_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        with pytest.raises(CommandError, match=f"{name} is no archive"):
            list(read_archives([tmp_path / name], entry(9)))
