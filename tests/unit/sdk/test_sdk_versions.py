"""The SDKs, the services and the contracts' stubs have one version."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import echomesh

ROOT = Path(__file__).resolve().parents[3]


def _toml(path: str) -> str:
    return str(tomllib.loads((ROOT / path).read_text())["project"]["version"])


def test_every_package_has_the_same_version() -> None:
    go = re.search(r'^const Version = "(.+)"$', (ROOT / "clients/go/doc.go").read_text(), re.M)
    assert go is not None
    node = ROOT / "clients/typescript"
    versions = {
        "services": _toml("pyproject.toml"),
        "clients/python": _toml("clients/python/pyproject.toml"),
        "echomesh.__version__": echomesh.__version__,
        "clients/typescript": json.loads((node / "package.json").read_text())["version"],
        "its lock": json.loads((node / "package-lock.json").read_text())["version"],
        "clients/go": go[1],
    }
    assert set(versions.values()) == {echomesh.__version__}, versions


def test_the_npm_lock_names_no_package_index() -> None:
    """Whoever sets up has an index of their own."""
    lock = json.loads((ROOT / "clients/typescript/package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
