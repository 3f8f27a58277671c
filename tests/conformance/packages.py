"""Each SDK as a package: built, installed into an empty environment, and what runs on it.

What the cases pass is thus what a user gets, not this repository's files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import setup
from scripts.generate import install, search_path, tool

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "clients"
DRIVERS = Path(__file__).parent / "drivers"
# A first build fetches what the package index has, and compiles all of gRPC for Go.
_BUILD_S = 900

EXAMPLES = ("stream_a_reply", "remember_and_ask")


class MissingToolError(Exception):
    """A language is not on this machine."""


@dataclass(frozen=True)
class Package:
    """An installed SDK: what was built, and the commands of its driver and of its examples."""

    built: list[Path]
    driver: list[str]
    examples: dict[str, list[str]]


def python(folder: Path) -> Package:
    """The wheel, which `uv build` makes out of the sdist, in an empty virtual environment."""
    _uv("build", "--no-build-isolation", "--out-dir", str(folder), cwd=CLIENTS / "python")
    (wheel,) = folder.glob("echomesh-*.whl")
    (sdist,) = folder.glob("echomesh-*.tar.gz")
    _uv("venv", "--python", sys.executable, str(folder / "venv"))
    into = str(folder / "venv/bin/python")
    lock = str(ROOT / "requirements/run.lock")
    index = setup.index()  # a company's index, with a certificate that the system trusts
    into_venv = ("pip", "install", "--system-certs", "--python", into, "--constraint", lock)
    _run("uv", *into_venv, str(wheel), cwd=ROOT, **index)
    examples = {e: [into, "-I", str(CLIENTS / f"python/examples/{e}.py")] for e in EXAMPLES}
    return Package([wheel, sdist], [into, "-I", str(DRIVERS / "driver.py")], examples)


def typescript(folder: Path) -> Package:
    """The tarball of `npm pack` in an empty project."""
    node = _tool("node")
    install(CLIENTS / "typescript")
    _run("npm", "pack", "--pack-destination", str(folder), cwd=CLIENTS / "typescript")
    (tarball,) = folder.glob("echomesh-*.tgz")
    (folder / "package.json").write_text('{"private": true}')
    quiet = ["--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts"]
    _run("npm", "install", *quiet, str(tarball), cwd=folder)
    shutil.copy(DRIVERS / "driver.mjs", folder)
    for example in EXAMPLES:
        shutil.copy(CLIENTS / f"typescript/examples/{example}.mjs", folder)
    examples = {e: [node, str(folder / f"{e}.mjs")] for e in EXAMPLES}
    return Package([tarball], [node, str(folder / "driver.mjs")], examples)


def go(folder: Path) -> Package:
    """A program that requires a copy of the SDK's module, built from an empty module cache."""
    _tool("go")
    # Without the folder's name in it, what was compiled once serves the next time too.
    flags = f"{os.environ.get('GOFLAGS', '')} -trimpath -modcacherw"
    env = {"GOMODCACHE": str(folder / "modules"), "GOFLAGS": flags.strip()}
    shutil.copytree(CLIENTS / "go", folder / "sdk")
    driver = folder / "driver"
    driver.mkdir()
    for file in DRIVERS.glob("*.go"):
        shutil.copy(file, driver)
    shutil.copy(folder / "sdk/go.sum", driver)
    programs = folder / "examples"
    programs.mkdir()
    _run("go", "build", "-o", str(programs), "./examples/...", cwd=folder / "sdk", **env)
    _run("go", "vet", ".", cwd=folder / "sdk", **env)
    _run("go", "mod", "init", "driver", cwd=driver, **env)
    replaced = ["-require=echomesh@v0.0.0", "-replace=echomesh=../sdk"]
    _run("go", "mod", "edit", *replaced, cwd=driver, **env)
    _run("go", "build", "-mod=mod", "-o", "program", ".", cwd=driver, **env)
    examples = {e: [str(programs / e)] for e in EXAMPLES}
    return Package([folder / "sdk"], [str(driver / "program")], examples)


SDKS: Mapping[str, Callable[[Path], Package]] = {
    "python": python,
    "typescript": typescript,
    "go": go,
}


def _tool(name: str) -> str:
    found = tool(name)
    if found is None:
        raise MissingToolError(f"there is no `{name}` here")
    return found


def _uv(*arguments: str, cwd: Path = ROOT) -> None:
    _run("uv", *arguments, cwd=cwd)


def _run(program: str, *arguments: str, cwd: Path, **more: str) -> None:
    """Run a step; it is an error, with what it said, if it fails."""
    command: Sequence[str] = [_tool(program), *arguments]
    env = {**os.environ, "PATH": search_path(), "GOTOOLCHAIN": "local", "GOWORK": "off"}
    env |= {"VIRTUAL_ENV": str(Path(sys.executable).parents[1]), **more}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
