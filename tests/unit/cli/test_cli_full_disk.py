"""What `echomesh up` does about a full disk, short of filling one (tests/faults does)."""

from __future__ import annotations

import errno
import io
from pathlib import Path

from rich.console import Console

from services.cli.progress import StartProgress
from services.runtime.embedded import EmbeddedPostgres


class FullDisk(io.StringIO):
    """A log file on a disk that has no space left."""

    def write(self, text: str) -> int:
        """Refuse."""
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_that_cannot_be_written_does_not_end_who_says_it() -> None:
    progress = StartProgress(Console(file=FullDisk()))
    with progress:
        progress.say("postgres ended (1); starting it again")
    progress.say("the disk is full")


def test_a_data_folder_that_is_gone_does_not_count_as_a_full_disk(tmp_path: Path) -> None:
    """Waiting for room would be for ever, and an error would end who watches over Postgres."""
    postgres = EmbeddedPostgres(tmp_path)
    postgres._data = tmp_path / "gone"
    assert postgres.has_room()
