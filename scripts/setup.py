"""Set up a virtual environment from the locked requirements: standard library alone.

    python3 scripts/setup.py run|dev|engine|chart|terraform|integrations

Repeating it does nothing until a lock file changes. Every failure is one clear line. It is written
so that Python 3.6 can read it: an old Python must get as far as being told that it is too old.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
# Measured on Linux x86_64 with Python 3.11 and 3.13: the environment and the package cache.
DISK_MB = {
    "run": 640,
    "dev": 800,
    "engine": 9000,
    "chart": 900,
    "terraform": 1100,
    "integrations": 900,
}
# vLLM wants its own releases of much, and is large: it is tested in an environment of its own. So
# are the chart's and Terraform's tools, and the frameworks that talk to the gateway.
OWN_VENV = {
    name: ROOT / f".{name}-venv" for name in ("engine", "chart", "terraform", "integrations")
}
SUPPORTED = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
ENGINE_SUPPORTED = {("Linux", "x86_64")}
MIN_GLIBC = (2, 28)
OFFLINE = "could not download packages: is there a network and a package index?"
# What installers print about causes that people know, in the order of how much they explain.
CAUSES = (
    "No space left on device",
    "Disk quota exceeded",
    "Temporary failure in name resolution",
    "Name or service not known",
    "nodename nor servname provided",
    "Connection refused",
    "Network is unreachable",
    "No route to host",
    "CERTIFICATE_VERIFY_FAILED",
    "invalid peer certificate",
    "401 Unauthorized",
    "403 Forbidden",
    "timed out",
)
DISK_CAUSES = CAUSES[:2]
HASH_WORDS = ("DO NOT MATCH THE HASHES", "Hash mismatch")


class SetupError(Exception):
    """What went wrong, in one line."""


def main() -> None:
    """Create or refresh the environment named on the command line."""
    try:
        set_up(sys.argv[1] if len(sys.argv) == 2 else "")
    except SetupError as error:
        say(f"setup: {error}")
        raise SystemExit(1) from None
    except OSError as error:
        say(f"setup: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        say("setup: stopped; run it again to go on")
        raise SystemExit(130) from None


def set_up(profile: str) -> None:
    """Bring the environment up to date for `profile`; raises SetupError."""
    global VENV, BIN  # this program sets up one environment and ends
    if profile not in DISK_MB:
        raise SetupError("usage: setup.py run|dev|engine|chart|terraform|integrations")
    VENV = OWN_VENV.get(profile, VENV)
    BIN = VENV / "bin"
    check_platform(ENGINE_SUPPORTED if profile == "engine" else SUPPORTED)
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
    for name in {"dev": ("dev", "run")}.get(profile, (profile,)):
        (VENV / f".ready-{name}").write_text(fingerprint(name))
    say(f"Set up in {time.monotonic() - started:.0f} s")


def check_platform(supported: set = SUPPORTED) -> None:
    """Stop on a platform for which some part has no wheel."""
    python = platform.python_version()
    if sys.version_info < (3, 11):
        raise SetupError(f"Echomesh needs Python 3.11 or newer; this is {python}")
    here = (platform.system(), platform.machine())
    if here not in supported:
        wanted = "Linux x86_64"
        if supported is SUPPORTED:
            wanted += "/aarch64 or macOS on arm64"
        raise SetupError(f"unsupported platform {' '.join(here)}: use {wanted}")
    if here[0] == "Linux":
        name, version = platform.libc_ver()
        if name != "glibc" or numbers(version) < MIN_GLIBC:
            this = f"{name or 'another libc'} {version}".strip()
            raise SetupError(f"Echomesh needs glibc 2.28 or newer; this is {this}")
    elif numbers(platform.mac_ver()[0]) < (14,):
        raise SetupError(f"Echomesh needs macOS 14 or newer; this is {platform.mac_ver()[0]}")


def numbers(version: str) -> tuple:
    """'2.36' -> (2, 36)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_disk(needed_mb: int) -> None:
    """Stop before half of the packages fill the disk."""
    free_mb = shutil.disk_usage(ROOT).free // 2**20
    if free_mb < needed_mb:
        raise SetupError(f"set-up needs {needed_mb} MB of disk; {ROOT} has {free_mb} MB left")


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
    if not is_usable():
        with Step("making the virtual environment"):
            run(
                [sys.executable, "-m", "venv", "--clear", str(VENV)],
                "could not make a virtual environment (on Debian and Ubuntu: install python3-venv)",
            )
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with Step("installing the installer"):
        run([*pip, "--require-hashes", "-r", str(ROOT / "requirements/uv.lock")], OFFLINE)


def is_usable() -> bool:
    """Whether there is an environment of this very Python, made to its end."""
    ask = "import pip, sys; print(sys.version)"
    try:
        done = subprocess.run([str(BIN / "python"), "-c", ask], capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == sys.version.strip()


def install(profile: str) -> None:
    """Bring the environment to exactly what is locked, plus this repository's two packages."""
    # The lock names every package, so nothing is resolved. The system's certificates are those
    # that a company's proxy or index needs.
    uv = [str(BIN / "uv"), "pip", "install", "--quiet", "--system-certs", "--no-deps"]
    uv += ["--python", str(BIN / "python")]
    with Step(f"installing {lock(profile).read_text().count('==')} packages"):
        # Compiled now, each process starts twice as fast. Of the engine's packages little is used.
        compiled = [] if profile in OWN_VENV else ["--compile-bytecode"]
        run([*uv, "--require-hashes", *compiled, "-r", str(lock(profile))], OFFLINE)
    own = [word for path in (ROOT / "clients/python", ROOT) for word in ("-e", str(path))]
    with Step("installing this repository"):
        run([*uv, "--no-build-isolation", *own], "could not install this repository's packages")
        # As above: a mesh is seven processes, and Python may have been told to keep nothing.
        folders = [str(ROOT / part) for part in ("services", "clients/python")]
        run([str(BIN / "python"), "-m", "compileall", "-q", *folders], "could not compile it")


def run(command: list, complaint: str) -> None:
    """Run a step; raises SetupError with the complaint and the cause if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **index()})
    if done.returncode:
        raise SetupError(explained(complaint, done.stderr.strip() or done.stdout.strip()))


def explained(complaint: str, output: str) -> str:
    """One line out of a complaint and what the failed program printed."""
    if any(words in output for words in HASH_WORDS):
        return "a package is not the one that the lock names; nothing of it was installed"
    lowered = output.lower()
    cause = next((cause for cause in CAUSES if cause.lower() in lowered), "")
    if cause in DISK_CAUSES:
        return f"the disk is full ({cause})"
    last = output.splitlines()[-1].strip() if output else "it gave no reason"
    return f"{complaint} ({cause or last[:300]})"


def index() -> dict:
    """The package index that pip was told of, by environment or configuration: uv reads neither."""
    if "UV_DEFAULT_INDEX" in os.environ or not (BIN / "python").exists():
        return {}
    if os.environ.get("PIP_INDEX_URL"):
        return {"UV_DEFAULT_INDEX": os.environ["PIP_INDEX_URL"]}
    command = [str(BIN / "python"), "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True)
    address = done.stdout.strip()
    return {"UV_DEFAULT_INDEX": address} if done.returncode == 0 and address else {}


class Step:
    """Shows one step: its seconds as they pass on a terminal, one plain line elsewhere."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.live = sys.stderr.isatty()
        self.over = threading.Event()
        self.ticker = threading.Thread(target=self.tick, daemon=True)

    def __enter__(self) -> None:
        self.started = time.monotonic()
        if self.live:
            self.ticker.start()
        else:
            say(f"  {self.what} ...")

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.live:
            self.ticker.join()
            self.show("\n")

    def tick(self) -> None:
        """Show the time four times a second until the step is over."""
        while not self.over.wait(0.25):
            self.show("")

    def show(self, end: str) -> None:
        """Write the line anew over itself."""
        elapsed = time.monotonic() - self.started
        print(f"\r  {self.what}  {elapsed:.1f} s", end=end, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Progress goes to standard error, so that pipes stay clean."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
