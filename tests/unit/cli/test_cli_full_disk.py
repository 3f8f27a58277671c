"""What `echomesh up` does about a full disk, short of filling one (tests/faults does)."""

from __future__ import annotations

import errno
import io

from rich.console import Console

from services.cli.progress import StartProgress


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
