"""Wrong clocks for single processes of a mesh, by libfaketime, changeable while they run.

Every service of the mesh is started through libfaketime with a file of its own that says how far
its clock is off; only wall clocks are touched, durations stay true. A start hook re-executes the
service's own command with the library preloaded, so that nothing else sees it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PLACES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
)
_FOLDER_KEY = "SKEW_FOLDER"
_LIBRARY_KEY = "SKEW_LIBRARY"

# Runs in every Python process below the mesh; a service's own start gets a clock of its own.
_HOOK = f"""
import os, sys

command = getattr(sys, "orig_argv", [])
folder = os.environ.get("{_FOLDER_KEY}")
is_service = len(command) == 3 and command[1] == "-m" and command[2].startswith("services.")
if folder and is_service and "LD_PRELOAD" not in os.environ:
    name = command[2].removeprefix("services.")
    own = {{
        "LD_PRELOAD": os.environ["{_LIBRARY_KEY}"],
        "FAKETIME_TIMESTAMP_FILE": os.path.join(folder, name),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }}
    os.execve(sys.executable, command, {{**os.environ, **own}})
"""


def library() -> str:
    """Where libfaketime lies, or nothing."""
    return next((place for place in _PLACES if Path(place).exists()), "")


def why_not() -> str:
    """Why no clock can be skewed here, or nothing."""
    return "" if library() else "libfaketime is not installed (Debian package libfaketime)"


@dataclass(frozen=True)
class Clocks:
    """The clocks of a mesh that was started with `environment`."""

    folder: Path

    @classmethod
    def prepare(cls, folder: Path, services: tuple[str, ...]) -> Clocks:
        """Write the start hook and a right clock for each service."""
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(_HOOK)
        clocks = cls(folder)
        for name in services:
            clocks.skew(name, 0)
        return clocks

    def environment(self) -> dict[str, str]:
        """What `echomesh up` must be started with."""
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        return {"PYTHONPATH": path, _FOLDER_KEY: str(self.folder), _LIBRARY_KEY: library()}

    def skew(self, service: str, seconds: int) -> None:
        """Set a service's clock so many seconds off, at once."""
        draft = self.folder / f".{service}"
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self.folder / service)
