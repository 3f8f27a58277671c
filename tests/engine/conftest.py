"""The models that the tests serve, made once, and the environment of an engine on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tiny_model import make_adapter, make_tiny_model

# Two cores, shared with whatever else runs: threads that wait for each other in loops are slow.
_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    # One process less: without it the core has a child for its one device.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@pytest.fixture(scope="session", autouse=True)
def _cpu() -> Iterator[None]:
    """Every worker that a test starts inherits this."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny model."""
    return make_adapter(tmp_path_factory.mktemp("models") / "terse")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small real model's folder; made by a process of its own, which frees its memory."""
    folder = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct"
    command = [sys.executable, "-m", "tests.support.gguf_folder", str(folder)]
    subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return folder
