"""A disk that can be filled: a tmpfs of its own, which only root may mount."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


def why_not() -> str:
    """Why no disk can be made here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "a disk of a given size is a Linux tmpfs"
    if os.geteuid() != 0:
        return "only root may mount the small disk that is to be filled"
    if shutil.which("mount") is None or shutil.which("umount") is None:
        return "there is no mount command"
    return ""


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk."""

    path: Path

    @property
    def free_bytes(self) -> int:
        """What is left."""
        return shutil.disk_usage(self.path).free

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all space but `leave_bytes`, however often it is called."""
        with self._ballast.open("ab") as ballast:
            while (left := self.free_bytes - leave_bytes) > 0:
                try:
                    ballast.write(b"\0" * min(left, MIB))
                    ballast.flush()
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def make_room(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of this size at `path`, and take it away at the end.

    Raises RuntimeError with the system's words if it is refused (in a container, say).
    """
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},mode=0755"
    mount = ["mount", "-t", "tmpfs", "-o", options, "echomesh-test", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"no small disk: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a process that a failed test left behind must not keep it here.
        subprocess.run(["umount", "-l", str(path)], check=True)
