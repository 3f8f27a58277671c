"""Trace collectors that are of no use: one that is not there, one that takes and never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent() -> Iterator[str]:
    """The address of a collector that is not there; nobody else gets its port meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """The address of a collector that takes every connection and byte and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_swallow, args=(server,), name="silent", daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _swallow(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # the test is over
        threading.Thread(target=_drain, args=(connection,), daemon=True).start()


def _drain(connection: socket.socket) -> None:
    with connection:
        try:
            while connection.recv(65_536):
                pass
        except OSError:
            return
