"""`python -m services.routing`: run the routing service."""

from __future__ import annotations

from functools import partial

from services.routing.config import RoutingSettings
from services.routing.server import NAME, build
from services.runtime.server import run
from services.runtime.settings import load_or_exit

if __name__ == "__main__":
    settings = load_or_exit(RoutingSettings)
    run(NAME, settings, partial(build, settings))
