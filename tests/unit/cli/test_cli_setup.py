"""Set-up fails in one clear line, whatever is missing; nothing here installs or needs a network."""

from __future__ import annotations

import ast
import importlib.util
import platform
import shutil
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/setup.py"

# What the installers really print, shortened.
PIP_OFFLINE = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<x>:\
 Failed to establish a new connection: [Errno 111] Connection refused')': /simple/uv/
ERROR: Could not find a version that satisfies the requirement uv==0.13.8 (from versions: none)
ERROR: No matching distribution found for uv==0.13.8"""
UV_OFFLINE = """\
error: Request failed after 3 retries in 6.7s
  cause: Failed to fetch: the index
  cause: client error (Connect)
  cause: dns error
  cause: failed to lookup address information: Name or service not known"""
PIP_TAMPERED = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.
        Expected sha256 aa
             Got        bb"""
DISK_FULL = "error: failed to write to `x.so`: No space left on device (os error 28)"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script over a folder of its own, with empty locks and an environment that is there."""
    spec = importlib.util.spec_from_file_location("setup_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in ("pyproject.toml", "clients/python/pyproject.toml", "requirements/run.lock"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("package==1\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "BIN", tmp_path / ".venv/bin")
    monkeypatch.setattr(module, "is_usable", lambda: True)
    return module


def program(setup: Any, name: str, prints: str = "", status: int = 0) -> None:
    """Put a program into the environment that prints this and ends so."""
    setup.BIN.mkdir(parents=True, exist_ok=True)
    path = setup.BIN / name
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{prints}\nEND\nexit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def failing(setup: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which set-up fails."""
    sys_argv, sys.argv = sys.argv, ["setup.py", "run"]
    try:
        with pytest.raises(SystemExit) as ended:
            setup.main()
    finally:
        sys.argv = sys_argv
    assert ended.value.code == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("setup: ")]
    assert len(said) == 1
    assert not (setup.VENV / ".ready-run").exists()
    return said[0]


@pytest.mark.parametrize(
    ("pip", "uv", "cause"),
    [(PIP_OFFLINE, "", "Connection refused"), ("", UV_OFFLINE, "Name or service not known")],
    ids=["pip", "uv"],
)
def test_no_network_is_one_line_that_names_the_cause(
    setup: Any, capsys: pytest.CaptureFixture[str], pip: str, uv: str, cause: str
) -> None:
    program(setup, "python", pip, status=int(bool(pip)))
    program(setup, "uv", uv, status=int(bool(uv)))
    line = failing(setup, capsys)
    assert line == (
        f"setup: could not download packages: is there a network and a package index? ({cause})"
    )


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (PIP_TAMPERED, "a package is not the one that the lock names"),
        (DISK_FULL, "the disk is full"),
        ("error: something new", "(error: something new)"),
        ("", "(it gave no reason)"),
    ],
)
def test_another_failure_of_an_installer_is_one_line_too(
    setup: Any, capsys: pytest.CaptureFixture[str], printed: str, said: str
) -> None:
    program(setup, "python")
    program(setup, "uv", printed, status=2)
    assert said in failing(setup, capsys)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_installed(
    setup: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = shutil._ntuple_diskusage(10**9, 10**9 - 5 * 2**20, 5 * 2**20)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    line = failing(setup, capsys)
    assert f"set-up needs {setup.DISK_MB['run']} MB of disk" in line
    assert "5 MB left" in line


def test_a_file_that_cannot_be_read_is_told_in_one_line(
    setup: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (setup.ROOT / "requirements/run.lock").unlink()
    assert "run.lock" in failing(setup, capsys)


@pytest.mark.parametrize(
    ("system", "machine", "libc", "said"),
    [
        ("Windows", "AMD64", ("", ""), "unsupported platform Windows AMD64"),
        ("Darwin", "x86_64", ("", ""), "unsupported platform Darwin x86_64"),
        ("Linux", "armv7l", ("glibc", "2.36"), "unsupported platform Linux armv7l"),
        ("Linux", "x86_64", ("glibc", "2.27"), "glibc 2.28 or newer; this is glibc 2.27"),
        ("Linux", "aarch64", ("", ""), "glibc 2.28 or newer; this is another libc"),
        ("Darwin", "arm64", ("", ""), "macOS 14 or newer; this is 13.6"),
    ],
)
def test_an_unsupported_platform_is_told_in_one_line(
    setup: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    libc: tuple[str, str],
    said: str,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("13.6", ("", "", ""), machine))
    assert said in failing(setup, capsys)


def test_an_old_python_is_told_in_one_line(
    setup: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.13")
    assert failing(setup, capsys) == "setup: Echomesh needs Python 3.11 or newer; this is 3.10.13"


def test_an_old_python_can_read_the_script_far_enough_to_say_so() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "__future__" not in imported
    annotations = [
        found
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for found in (node.returns, *(argument.annotation for argument in node.args.args))
    ]
    assert not any(isinstance(found, ast.Subscript | ast.BinOp) for found in annotations)


def test_set_up_marks_itself_done_and_does_nothing_the_second_time(
    setup: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    program(setup, "python")
    program(setup, "uv")
    setup.set_up("run")
    steps = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in steps[1:-1]] == [
        "installing the installer ...",
        "installing 1 packages ...",
        "installing this repository ...",
    ]
    setup.set_up("run")
    assert capsys.readouterr().err == ""


def test_an_environment_that_was_cut_short_or_is_another_pythons_is_made_anew(
    tmp_path: Path, setup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    spec_usable = setup.is_usable
    setup.BIN = tmp_path / "bin"
    assert not spec_usable()
    program(setup, "python", status=1)
    assert not spec_usable()
    (setup.BIN / "python").write_text("#!/bin/sh\necho '3.9.1 (main)'\n")
    assert not spec_usable()
    (setup.BIN / "python").write_text(f"#!/bin/sh\necho '{sys.version}'\n")
    assert spec_usable()
