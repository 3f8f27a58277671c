"""The sabotages of `make mutants` fit the product as it is, so that none is forgotten unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.catalogue import Mutant, StaleMutant, chosen, load

TREE = Path(__file__).resolve().parents[3]
MUTANTS = load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_sabotage_finds_its_text_and_changes_it(mutant: Mutant) -> None:
    text = (TREE / mutant.file).read_text("utf-8")
    assert mutant.sabotaged(text) != text
    assert mutant.file.startswith(("services/", "clients/"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_should_notice_a_sabotage_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert not name or f"def {name.partition('[')[0]}(" in (TREE / file).read_text("utf-8")


def test_there_are_enough_sabotages_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15


def test_a_stale_sabotage_and_an_unknown_name_are_refused() -> None:
    mutant = Mutant("gone", "nothing", "services/x.py", "absent", "", ("tests",))
    for text in ("something else", "absent, absent"):
        with pytest.raises(StaleMutant):
            mutant.sabotaged(text)
    with pytest.raises(StaleMutant):
        chosen(MUTANTS, ["no-such-sabotage"])
