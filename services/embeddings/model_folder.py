"""The built model on disk: made once in a process of its own, found again at every later start."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from services.embeddings.source import ModelError, ModelSource, folder_source, packaged_source

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILDER_VERSION = 1  # raise it with every change of the built files: it is part of the version
BUILD_TIMEOUT_S = 300.0  # minutes, for large models on slow disks; MiniLM takes seconds
SCRATCH_PREFIX = ".building-"
COMPLETE = "model.json"


def find_source(folder: Path | None) -> ModelSource:
    """The model of `folder`, or the packaged MiniLM; raises ModelError with what to do."""
    return folder_source(folder) if folder else packaged_source()


def version_of(source: ModelSource) -> str:
    """Name and build of a model, as in ``minilm-l6-v2-q8@1a2b3c4d``: same version, same vectors."""
    digest = hashlib.sha256(f"{source.digest}\n{BUILDER_VERSION}".encode()).hexdigest()
    return f"{source.name}-q8@{digest[:8]}"


def ensure_built(folder: Path | None, models_dir: Path) -> Path:
    """Return the folder to serve from, building it first if needed. Blocks for seconds then.

    Safe for several processes on one `models_dir`: one builds, the others wait. A build that was
    cut off leaves nothing that looks complete.

    Raises:
        ModelError: there is no such model, or it cannot be built.
        OSError: `models_dir` cannot be written.

    """
    source = find_source(folder)
    target = models_dir / version_of(source)
    if (target / COMPLETE).is_file():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    with _locked(models_dir / ".lock"):
        if not (target / COMPLETE).is_file():
            _clear_scratch(models_dir)
            _build(folder, version_of(source), target)
    return target


def _build(folder: Path | None, version: str, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=target.parent))
    try:
        _run_builder(folder, version, scratch)
        for path in scratch.iterdir():
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_builder(folder: Path | None, version: str, scratch: Path) -> None:
    command = [sys.executable, "-m", "services.embeddings.build"]
    command += ["--version", version, "--target", str(scratch)]
    if folder:
        command += ["--source", str(folder.resolve())]
    root = Path(__file__).resolve().parents[2]  # where the `services` package lies
    try:
        done = subprocess.run(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"building the model took over {BUILD_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ModelError(f"the model could not be built: {lines[-1]}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear_scratch(models_dir: Path) -> None:
    """Remove what builds left that were cut off; the lock is held, so none of them runs."""
    for path in models_dir.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
