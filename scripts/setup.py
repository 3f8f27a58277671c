"""Set up the virtual environment from the locked requirements: standard library alone.

    python3 scripts/setup.py run|dev

Repeating it does nothing until a lock file changes. Every failure is one clear line.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
# Measured on Linux x86_64 with Python 3.11 and 3.13: the environment and the package cache.
DISK_MB = {"run": 640, "dev": 800}
SUPPORTED = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
MIN_GLIBC = (2, 28)
OFFLINE = "could not download packages: is there a network and a package index?"


def main() -> None:
    """Create or refresh the environment named on the command line."""
    profile = sys.argv[1] if len(sys.argv) == 2 else ""
    if profile not in DISK_MB:
        fail("usage: setup.py run|dev")
    check_platform()
    stamp = VENV / f".ready-{profile}"
    wanted = fingerprint(profile)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    started = time.monotonic()
    check_disk(DISK_MB[profile])
    say(f"Setting up {VENV.name} ({profile}: about {DISK_MB[profile]} MB on disk)")
    create_environment()
    install(profile)
    # The dev environment holds everything that run needs.
    for name in {"dev": ("dev", "run"), "run": ("run",)}[profile]:
        (VENV / f".ready-{name}").write_text(fingerprint(name))
    say(f"Set up in {time.monotonic() - started:.0f} s")


def check_platform() -> None:
    """Stop on a platform for which some part has no wheel."""
    if sys.version_info < (3, 11):
        fail(f"Echomesh needs Python 3.11 or newer; this is {platform.python_version()}")
    here = (platform.system(), platform.machine())
    if here not in SUPPORTED:
        fail(f"unsupported platform {' '.join(here)}: use Linux x86_64/aarch64 or macOS on arm64")
    name, version = platform.libc_ver()
    if here[0] == "Linux" and (name != "glibc" or numbers(version) < MIN_GLIBC):
        fail(f"Echomesh needs glibc 2.28 or newer; this is {name or 'another libc'} {version}")
    if here[0] == "Darwin" and numbers(platform.mac_ver()[0]) < (14,):
        fail(f"Echomesh needs macOS 14 or newer; this is {platform.mac_ver()[0]}")


def numbers(version: str) -> tuple[int, ...]:
    """'2.36' -> (2, 36)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_disk(needed_mb: int) -> None:
    """Stop before half of the packages fill the disk."""
    free_mb = shutil.disk_usage(ROOT).free // 2**20
    if free_mb < needed_mb:
        fail(f"set-up needs {needed_mb} MB of disk; {ROOT} has {free_mb} MB left")


def fingerprint(profile: str) -> str:
    """What the environment depends on: the lock, both packages, and the interpreter."""
    digest = hashlib.sha256(sys.version.encode() + str(ROOT).encode())
    for path in (lock(profile), ROOT / "pyproject.toml", ROOT / "clients/python/pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def lock(profile: str) -> Path:
    """The locked requirements of a profile."""
    return ROOT / "requirements" / f"{profile}.lock"


def create_environment() -> None:
    """Make the virtual environment with uv inside; uv then installs in seconds."""
    if not (BIN / "python").exists():
        run(
            [sys.executable, "-m", "venv", str(VENV)],
            "could not make a virtual environment (on Debian and Ubuntu: install python3-venv)",
        )
    run(
        [
            str(BIN / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            str(ROOT / "requirements/uv.lock"),
        ],
        OFFLINE,
    )


def install(profile: str) -> None:
    """Bring the environment to exactly what is locked, plus this repository's two packages."""
    # The lock names every package, so nothing is resolved. The system's certificates are those
    # that a company's proxy or index needs.
    uv = [str(BIN / "uv"), "pip", "install", "--quiet", "--system-certs", "--no-deps"]
    uv += ["--python", str(BIN / "python")]
    say(f"Installing {lock(profile).read_text().count('==')} packages ...")
    # Compiled now, each process starts twice as fast.
    run([*uv, "--require-hashes", "--compile-bytecode", "-r", str(lock(profile))], OFFLINE)
    run(
        [
            *uv,
            "--no-build-isolation",
            "-e",
            str(ROOT / "clients/python"),
            "-e",
            str(ROOT),
        ],
        "could not install this repository's packages",
    )


def run(command: list[str], complaint: str) -> None:
    """Run a step; on failure show its last line and the complaint."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **index()})
    if done.returncode:
        lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or [""]
        reason = next((line for line in lines if "No space left" in line), lines[-1])
        fail(f"{complaint}\n  {reason.strip()[:300]}")


def index() -> dict[str, str]:
    """The package index of pip's own configuration, which uv does not read."""
    if "UV_DEFAULT_INDEX" in os.environ or not (BIN / "python").exists():
        return {}
    command = [str(BIN / "python"), "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True)
    address = done.stdout.strip()
    return {"UV_DEFAULT_INDEX": address} if done.returncode == 0 and address else {}


def say(line: str) -> None:
    """Progress goes to standard error, so that pipes stay clean."""
    print(line, file=sys.stderr, flush=True)


def fail(line: str) -> None:
    """Stop with one line."""
    say(f"setup: {line}")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
