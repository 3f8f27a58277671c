"""A worker that serves nothing but its heartbeat; an argument is why it cannot get ready."""

from __future__ import annotations

import asyncio
import sys

import grpc

from services.runtime.supervisor import socket_from_environment
from services.runtime.worker import Progress, run_worker


async def register(_server: grpc.aio.Server, progress: Progress) -> None:
    """Nothing to add."""
    progress.failure = "".join(sys.argv[1:])
    progress.ready = not progress.failure


if __name__ == "__main__":
    asyncio.run(run_worker(register, socket_from_environment()))
