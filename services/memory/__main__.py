"""Runs the memory service, or one of its commands: migrate, reconcile, rebuild."""

from __future__ import annotations

import sys
from functools import partial

from services.memory.commands import run_command
from services.memory.config import MemorySettings
from services.memory.server import build
from services.runtime.server import run
from services.runtime.settings import load_or_exit

if __name__ == "__main__":
    settings = load_or_exit(MemorySettings)
    if sys.argv[1:]:
        sys.exit(run_command(settings, sys.argv[1:]))
    run("memory", settings, partial(build, settings))
