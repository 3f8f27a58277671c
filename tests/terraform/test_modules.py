"""Each module's own tests, and that all of them read alike."""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.terraform.conftest import ROOT
from tests.terraform.program import MissingError, Terraform

FOLDER = ROOT / "terraform"
TESTED = sorted(
    str(path.parent.relative_to(ROOT)) for path in FOLDER.rglob("tests") if path.is_dir()
)
BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)


def sources() -> list[Path]:
    """All of Terraform's files."""
    return sorted(FOLDER.rglob("*.tf"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("folder", TESTED)
def test_the_modules_own_tests_pass(folder: str, module_tests: dict[str, Future[str]]) -> None:
    said = module_tests[folder].result()
    runs = sum(path.read_text().count('\nrun "') for path in (ROOT / folder).rglob("*.tftest.hcl"))
    assert f"Success! {runs} passed, 0 failed." in said
    assert runs > 1


def test_every_module_but_those_without_mocks_has_tests() -> None:
    modules = {path.name for path in (FOLDER / "modules").iterdir()}
    # Terraform mocks no ephemeral resources; the cloud of paper has this one.
    assert {Path(folder).name for folder in TESTED} - {"any-cluster"} == modules - {"password"}


def test_files_are_formatted() -> None:
    try:
        assert not Terraform(ROOT).run("terraform", "fmt", "-check", "-recursive")
    except MissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_variables_and_outputs_say_what_they_are(path: Path) -> None:
    for kind, name, body in BLOCK.findall(path.read_text()):
        assert re.search(r"^  description +=", body, re.MULTILINE), name
        assert kind == "output" or re.search(r"^  type +=", body, re.MULTILINE), name


def test_every_folder_asks_for_the_same_versions() -> None:
    asked = {
        (name, version)
        for path in sources()
        for name, version in re.findall(
            r'source  = "hashicorp/(\w+)"\s+version = "([^"]+)"', path.read_text()
        )
    }
    assert asked == {("aws", "~> 5.100"), ("helm", "~> 3.1")}
    for module in [*(FOLDER / "modules").iterdir(), *(FOLDER / "examples").iterdir()]:
        texts = "".join(path.read_text() for path in module.glob("*.tf"))
        assert texts.count('required_version = ">= 1.11"') == 1, module.name
