"""The release before works on this release's schema, as it must while one replaces the other.

N-1 is the tree just before the newest migration came: its own tests of its own code run here, in
a process of their own, on a database that this tree's migrations made.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import gettempdir

import pytest

import services
from services.runtime.migrate import load
from tests.support.postgres import roomy_memory

ROOT = Path(services.__file__).resolve().parents[1]

TESTS = {
    "auth": ("test_auth_sessions.py", "test_auth_admin.py"),
    "memory": ("test_memory_store.py", "test_memory_recall_flow.py"),
}
"""What of N-1's integration tests, by its own names, goes through all statements of a service."""

RUN = """
import sys, pytest, echomesh, services
assert all(m.__file__.startswith(sys.argv[1]) for m in (services, echomesh)), "another tree's code"
sys.exit(pytest.main(sys.argv[2:]))
"""


def _git(*arguments: str) -> bytes:
    """What git says of this repository; the test says why it skips where there is none."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git clone: there is no earlier release to take from its history")
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"git {arguments[0]} failed: {done.stderr.decode().strip()}")
    return done.stdout


def _previous_commit(migration: Path) -> str:
    """The commit before the one that brought a migration; HEAD while it is not committed."""
    found = _git("log", "--diff-filter=A", "--format=%H", "--", str(migration.relative_to(ROOT)))
    commits = found.decode().split()
    return f"{commits[-1]}^" if commits else "HEAD"


def _previous_tree(service: str, folder: Path) -> Path:
    """N-1's files, but with this tree's migrations of the service."""
    migrations = ROOT / "services" / service / "migrations"
    newest = load(migrations)[-1]
    commit = _previous_commit(migrations / f"{newest.name}.sql")
    parts = ("services", "clients", "tests", "protos", "pyproject.toml")
    tar = _git("archive", "--format=tar", commit, *parts)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        # As an attribute: early releases of Python 3.11 know no filters, and take no such argument.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)  # noqa: S202 - from our own history
    theirs = folder / "services" / service / "migrations"
    assert len(load(theirs)) < newest.version
    shutil.copytree(migrations, theirs, dirs_exist_ok=True)
    return folder


@pytest.mark.timeout(500)
@pytest.mark.parametrize("service", TESTS)
def test_the_release_before_passes_its_own_tests_on_this_releases_schema(
    service: str, tmp_path: Path
) -> None:
    newest = load(ROOT / "services" / service / "migrations")[-1]
    if newest.version == 1 or newest.compatible_from == newest.version:
        pytest.skip(f"{newest.name} of {service} says that the release before cannot work on it")
    tree = _previous_tree(service, tmp_path / "previous")
    tests = [f"tests/integration/{name}" for name in TESTS[service]]
    path = os.pathsep.join(str(tree / part) for part in (".", "clients/python"))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tree), "-q", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(roomy_memory() or gettempdir())},
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
