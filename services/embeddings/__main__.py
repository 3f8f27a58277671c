"""Runs the embeddings service."""

from __future__ import annotations

from functools import partial

from services.embeddings.config import EmbeddingsSettings
from services.embeddings.server import build
from services.runtime.server import run
from services.runtime.settings import load_or_exit

if __name__ == "__main__":
    settings = load_or_exit(EmbeddingsSettings)
    run("embeddings", settings, partial(build, settings))
