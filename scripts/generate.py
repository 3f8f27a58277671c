"""Generate the stubs of every SDK from protos/, and the API reference: `make proto`.

Python's are always made. Go's and TypeScript's need Go and Node on the machine; what cannot be
made is named, and its committed files stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import google.rpc.status_pb2

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# What clients talk to; the rest is spoken between services and their workers.
CLIENT_PACKAGES = ("common", "auth", "memory", "models", "routing")
# The other languages have no package of these, which failed calls carry.
ERROR_PROTOS = ("status.proto", "error_details.proto")
# Where the Go installer puts it, on the PATH or not.
GO_HOME = Path("/usr/local/go/bin")
MIN_NODE = 20


class LeftOutError(Exception):
    """Why a language could not be generated here, in a few words."""


def main() -> None:
    """Generate everything that this machine can."""
    buf()
    reference = run([sys.executable, "scripts/api_reference.py"])
    (ROOT / "docs/api.md").write_text(reference)
    languages: dict[str, Callable[[], None]] = {"Go": go, "TypeScript": typescript}
    for language, generate in languages.items():
        try:
            generate()
        except LeftOutError as error:
            print(f"left out: {language} ({error})", file=sys.stderr)


def go() -> None:
    """Go's stubs; the plugins are pinned in its template and compiled by Go itself."""
    if not tool("go"):
        raise LeftOutError("there is no `go` here")
    client_stubs("go")


def typescript() -> None:
    """TypeScript's stubs; the plugin is one of the SDK's development packages."""
    node = tool("node")
    if not node or not tool("npm"):
        raise LeftOutError("there is no `node` and `npm` here")
    version = run([node, "--version"]).strip()
    if int(version.removeprefix("v").split(".")[0]) < MIN_NODE:
        raise LeftOutError(f"it needs Node {MIN_NODE}, this is {version}")
    install(ROOT / "clients/typescript")
    errors = Path(google.rpc.status_pb2.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder)
        shutil.copytree(ROOT / "protos", together, dirs_exist_ok=True)
        (together / "google/rpc").mkdir(parents=True)
        for name in ERROR_PROTOS:
            shutil.copy(errors / name, together / "google/rpc" / name)
        client_stubs("typescript", together, "google/rpc")


def install(package: Path) -> None:
    """Bring node_modules to what the lock names, unless it is so already."""
    made, lock = package / "node_modules/.package-lock.json", package / "package-lock.json"
    if not made.exists() or made.stat().st_mtime < lock.stat().st_mtime:
        # None of these packages needs a script of its own to be installed.
        run(["npm", "ci", "--loglevel=error", "--ignore-scripts"], cwd=package)


def client_stubs(language: str, protos: Path = ROOT / "protos", *more: str) -> None:
    """The stubs of what clients talk to, by the template of a language."""
    paths = [*(f"echomesh/{name}" for name in CLIENT_PACKAGES), *more]
    chosen = [word for path in paths for word in ("--path", str(protos / path))]
    template = f"clients/{language}/buf.gen.yaml"
    buf(str(protos), "--template", template, "--exclude-type", "buf.validate", *chosen)


def buf(*arguments: str) -> None:
    """Run `buf generate`."""
    run([str(BIN / "buf"), "generate", *arguments])


def tool(name: str) -> str | None:
    """Where a program is, if it is anywhere."""
    return shutil.which(name, path=search_path())


def search_path() -> str:
    """The environment's own programs first, and Go where it is installed by default."""
    return os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath), str(GO_HOME)])


def run(command: list[str], cwd: Path = ROOT) -> str:
    """Run a step and return what it printed; ends with what it said if it fails."""
    env = {**os.environ, "PATH": search_path(), "GOTOOLCHAIN": "local"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr or done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
