"""Try sabotages: `python -m tests.mutants [NAME ...]`; `--list` shows them, `--table` for the docs.

Each is applied alone to a copy of the tree. The tests that should notice run first; if they stay
green, all of `make test` does, up to its first failure. A sabotage that no test notices, and one
whose text has gone from the product, end this with status 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.catalogue import Mutant, StaleMutant, chosen, load
from tests.mutants.workplace import Outcome, Verdict, Workplace, workplace

TREE = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its status."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description="Are the tests real?")
    parser.add_argument("names", nargs="*", help="sabotages to try; all without any")
    parser.add_argument("--list", action="store_true", help="show the sabotages and try none")
    parser.add_argument(
        "--table", action="store_true", help="also print what docs/testing.md shows"
    )
    options = parser.parse_args(arguments)
    try:
        mutants = chosen(load(), options.names)
        for mutant in mutants:
            mutant.sabotaged((TREE / mutant.file).read_text("utf-8"))
    except StaleMutant as error:
        sys.stderr.write(f"stale: {error}\n")
        return 1
    if options.list:
        for mutant in mutants:
            _say(f"{mutant.name:28} {mutant.breaks}")
        return 0
    with workplace(TREE) as place:
        return _try_all(place, mutants, table=options.table)


def _say(line: str) -> None:
    """A line as soon as it is known: a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _try_all(place: Workplace, mutants: Sequence[Mutant], *, table: bool) -> int:
    expected = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    sound = place.test(expected)
    if sound.verdict is not Verdict.GREEN:
        _say(f"the tests fail without any sabotage: {sound.noticed}\n{sound.said}")
        return 1
    _say(f"the product as it is: green ({sound.seconds:.0f} s)")
    outcomes = [(mutant, _try(place, mutant)) for mutant in mutants]
    if table:
        _print_table(outcomes)
    alive = [mutant.name for mutant, outcome in outcomes if outcome.verdict is not Verdict.RED]
    _say(f"{len(outcomes) - len(alive)}/{len(outcomes)} killed")
    return 1 if alive else 0


def _try(place: Workplace, mutant: Mutant) -> Outcome:
    before = mutant.apply(place.root)
    try:
        outcome = place.test(mutant.tests)
        if outcome.verdict is Verdict.GREEN:
            outcome = place.test()
    finally:
        (place.root / mutant.file).write_text(before, "utf-8")
    words = {Verdict.RED: "killed", Verdict.GREEN: "SURVIVED", Verdict.BROKEN: "BROKEN"}
    word = words[outcome.verdict]
    _say(f"{word:9}{mutant.name:28} {outcome.noticed} ({outcome.seconds:.0f} s)")
    if outcome.verdict is Verdict.BROKEN:
        _say(outcome.said)
    return outcome


def _print_table(outcomes: Sequence[tuple[Mutant, Outcome]]) -> None:
    _say("\n| sabotage | what it breaks | caught by |\n|---|---|---|")
    for mutant, outcome in outcomes:
        test = outcome.noticed.removeprefix("tests/").replace("::", " :: ") or "nothing"
        _say(f"| {mutant.name} | {mutant.breaks} | `{test}` |")
    _say("")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
