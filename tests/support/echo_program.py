"""A process that serves the made-up service, to be frozen and killed by tests.

Usage: python -m tests.support.echo_program ADDRESS FOLDER
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from services.runtime.clock import SystemClock
from services.runtime.server import Server
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionVerifier
from services.runtime.trust import load_public
from tests.support.transport import Text, registration


async def who(request: Any, context: Any) -> Any:
    """Say which process answers."""
    return Text(value=str(os.getpid()))


async def serve(address: str, folder: Path) -> None:
    """Serve until the process is killed."""
    settings = ServiceSettings(mesh_address=address, data_dir=folder, trust_dir=folder)
    verifier = AssertionVerifier("memory", load_public(folder), SystemClock())
    server = Server("memory", settings, mesh=[registration(Anyone=who)], verifier=verifier)
    await server.start()
    print(server.mesh_bound, flush=True)  # noqa: T201 - the parent waits for it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
