"""A copy of the tree in which sabotages are tried, with the tests run inside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

# The whole selection of `make test` on a slow machine.
LIMIT_S = 1800.0
_NOTICED = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", re.MULTILINE)
_PYTEST_OK, _PYTEST_FAILED = 0, 1


class Verdict(Enum):
    """How a run of tests ended."""

    GREEN = "green"
    RED = "red"
    BROKEN = "broken"
    """Nothing was tested: wrong test names, or code that cannot even be imported."""


@dataclass(frozen=True)
class Outcome:
    """A run of tests: `noticed` is the first test that failed, `said` the end of its output."""

    verdict: Verdict
    noticed: str
    seconds: float
    said: str


@dataclass(frozen=True)
class Workplace:
    """The copied tree."""

    root: Path

    def environment(self) -> dict[str, str]:
        """Imports come from the copy, whatever the environment's own packages point at."""
        places = [self.root, self.root / "clients" / "python"]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            # Two texts of the same length within one second would look alike to a kept byte code.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def check_imports(self) -> None:
        """Raise RuntimeError unless the product is imported from the copy."""
        program = "import services, echomesh; print(services.__file__); print(echomesh.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        for line in done.stdout.split():
            if not Path(line).resolve().is_relative_to(self.root.resolve()):
                raise RuntimeError(f"{line} is imported instead of the copy in {self.root}")

    def test(self, tests: Sequence[str] = ()) -> Outcome:
        """Run these tests, or all that `make test` runs, up to the first failure."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
        ]
        began = time.monotonic()
        try:
            done = subprocess.run(
                [*command, *tests],
                cwd=self.root,
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(Verdict.RED, "no test ended in time", LIMIT_S, "")
        return _outcome(done.returncode, done.stdout, time.monotonic() - began)


def _outcome(status: int, said: str, seconds: float) -> Outcome:
    found = _NOTICED.search(said)
    if status == _PYTEST_OK:
        return Outcome(Verdict.GREEN, "", seconds, "")
    if status == _PYTEST_FAILED and found:
        return Outcome(Verdict.RED, found.group(1), seconds, said[-2000:])
    return Outcome(Verdict.BROKEN, "", seconds, said[-2000:])


@contextmanager
def workplace(tree: Path) -> Iterator[Workplace]:
    """Copy what git knows or would take, and remove the copy at the end."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder) / "tree"
        for name in _files(tree):
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target)
        virtual = tree / ".venv"
        if virtual.exists():
            (root / ".venv").symlink_to(virtual)
        place = Workplace(root)
        place.check_imports()
        yield place


def _files(tree: Path) -> list[str]:
    """What is tracked and what is new, without what is ignored or deleted."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (tree / name).is_file()]
