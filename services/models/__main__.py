"""Runs the models service."""

from __future__ import annotations

from functools import partial

from services.models.config import ModelsSettings
from services.models.server import build
from services.runtime.server import run
from services.runtime.settings import load_or_exit

if __name__ == "__main__":
    settings = load_or_exit(ModelsSettings)
    run("models", settings, partial(build, settings))
