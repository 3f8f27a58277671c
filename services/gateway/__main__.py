"""`python -m services.gateway`: run the gateway."""

from __future__ import annotations

from functools import partial

from services.gateway.config import GatewaySettings
from services.gateway.server import NAME, build
from services.runtime.server import run
from services.runtime.settings import load_or_exit

if __name__ == "__main__":
    settings = load_or_exit(GatewaySettings)
    run(NAME, settings, partial(build, settings))
