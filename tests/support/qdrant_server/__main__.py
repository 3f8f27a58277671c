"""`python -m tests.support.qdrant_server --folder F --port P`: serve until SIGTERM.

Prints one line, ``ready HOST:PORT``, when calls are answered. With ``--parent-pipe`` it also ends
when its standard input does, that is with whoever started it. The API key, if one is wanted, is
taken from ``QDRANT__SERVICE__API_KEY`` as a real server takes it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from qdrant_client import grpc as q

from tests.support.qdrant_server.engine import Collections
from tests.support.qdrant_server.servicers import (
    ApiKey,
    CollectionsServicer,
    Desk,
    PointsServicer,
    RootServicer,
)

HOST = "127.0.0.1"
MAX_MESSAGE_BYTES = 64 * 2**20

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Qdrant's own server (tonic) counts no pings; grpc's would send clients away.
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def serve(folder: Path, port: int, parent_pipe: bool) -> None:
    """Serve the collections in ``folder`` until told to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, ended.set)
    if parent_pipe:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    with ThreadPoolExecutor(1, "engine") as thread:
        collections = await loop.run_in_executor(thread, Collections, folder)
        server = _server(Desk(collections, thread))
        bound = server.add_insecure_port(f"{HOST}:{port}")
        await server.start()
        sys.stdout.write(f"ready {HOST}:{bound}\n")
        sys.stdout.flush()
        await ended.wait()
        await server.stop(0.2)
        await loop.run_in_executor(thread, collections.close)


def _server(desk: Desk) -> Any:
    key = os.environ.get("QDRANT__SERVICE__API_KEY")
    server = grpc.aio.server(interceptors=[ApiKey(key)] if key else [], options=OPTIONS)
    q.add_QdrantServicer_to_server(RootServicer(), server)
    q.add_CollectionsServicer_to_server(CollectionsServicer(desk), server)
    q.add_PointsServicer_to_server(PointsServicer(desk), server)
    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server as the command line says."""
    parser = argparse.ArgumentParser(prog="qdrant_server", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the collections are kept")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--parent-pipe", action="store_true", help="end with standard input")
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.folder, options.port, options.parent_pipe))


if __name__ == "__main__":
    main()
