"""A worker that serves nothing but its heartbeat."""

from __future__ import annotations

import asyncio

import grpc

from services.runtime.supervisor import socket_from_environment
from services.runtime.worker import Progress, run_worker


async def register(_server: grpc.aio.Server, _progress: Progress) -> None:
    """Nothing to add."""


if __name__ == "__main__":
    asyncio.run(run_worker(register, socket_from_environment()))
