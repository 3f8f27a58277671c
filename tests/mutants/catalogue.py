"""The sabotages: one small replacement each, kept as exact text so that a stale one is noticed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("mutants.toml")


class StaleMutant(Exception):
    """The text that a sabotage replaces is not there, or more than once."""


@dataclass(frozen=True)
class Mutant:
    """One sabotage: `old` stands once in `file` and becomes `new`; `tests` should notice first."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def sabotaged(self, text: str) -> str:
        """The file's text with the sabotage in it; raises StaleMutant."""
        count = text.count(self.old)
        if count != 1:
            raise StaleMutant(f"{self.name}: its text is {count} times in {self.file}, not once")
        return text.replace(self.old, self.new)

    def apply(self, root: Path) -> str:
        """Sabotage the tree at `root`; returns the file's text from before. Raises StaleMutant."""
        path = root / self.file
        if not path.exists():
            raise StaleMutant(f"{self.name}: there is no {self.file}")
        before = path.read_text("utf-8")
        path.write_text(self.sabotaged(before), "utf-8")
        return before


def load(path: Path = FILE) -> list[Mutant]:
    """All sabotages in the order of the file."""
    entries = tomllib.loads(path.read_text("utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def chosen(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    """Those of these names, all of them without any; raises StaleMutant for an unknown name."""
    known = {mutant.name: mutant for mutant in mutants}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise StaleMutant(f"no such mutant: {', '.join(unknown)}")
    return [known[name] for name in names] if names else list(mutants)
