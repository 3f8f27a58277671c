"""AWS' provider, started once for many runs of Terraform: it takes seconds and is half a gigabyte.

Where Terraform starts it itself, every command first reads all of it to compare its checksum.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.terraform.program import REGISTRY, TerraformError

_SAID = re.compile(r"TF_REATTACH_PROVIDERS='(.+)'")


@contextmanager
def serving(folder: Path, env: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Serve the provider that `init` put into a folder; yields its part of TF_REATTACH_PROVIDERS.

    All who share it share its configuration too: it is for runs that look at its schema alone.
    """
    installed = folder / ".terraform/providers" / REGISTRY / "hashicorp/aws"
    (program,) = installed.glob("*/*/terraform-provider-aws*")
    process = subprocess.Popen(
        [str(program), "-debug"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield _attachment(process)
    finally:
        process.kill()  # it holds nothing
        process.communicate()


def _attachment(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if said := _SAID.search(line):
            attachment: dict[str, Any] = json.loads(said[1])
            return attachment
    raise TerraformError("the provider of AWS ended instead of serving")
