"""Runs auth; `migrate` and `bootstrap` as arguments do that instead."""

import sys

from services.auth.commands import run_command
from services.auth.config import AuthSettings
from services.auth.server import build
from services.runtime.server import run
from services.runtime.settings import load_or_exit

if __name__ == "__main__":
    settings = load_or_exit(AuthSettings)
    if sys.argv[1:]:
        run_command(settings, sys.argv[1:])
    else:
        run("auth", settings, lambda stack: build(settings, stack))
