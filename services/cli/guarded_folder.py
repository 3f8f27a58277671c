"""A data folder that one `echomesh up` holds: its lock, its format, its ports."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from services.cli.files import CommandError
from services.cli.plan import FORMAT, Layout
from services.runtime.process import private_folder


@contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Hold the folder's lock; raises CommandError in one line if that cannot be."""
    try:
        private_folder(layout.data)
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CommandError(f"{layout.data} cannot be used: {error.strerror or error}") from None
    try:
        _lock(descriptor, layout)
        _check_format(layout)
        layout.logs.mkdir(mode=0o700, exist_ok=True)
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CommandError(f"the disk of {layout.data} is full") from None
        raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int, layout: Layout) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CommandError(f"a mesh is up on {layout.data} already") from None


def _check_format(layout: Layout) -> None:
    """Refuse a folder that a newer release made, or that is no data folder."""
    if not layout.format.exists():
        if layout.postgres.exists():
            raise CommandError(f"{layout.data} is broken: {layout.format.name} is missing")
        layout.format.write_text(f"{FORMAT}\n")
        return
    text = layout.format.read_text().strip()
    if not text.isdigit():
        raise CommandError(f"{layout.data} is broken: {layout.format.name} holds no number")
    if int(text) > FORMAT:
        raise CommandError(
            f"{layout.data} was made by a newer release (format {text}, this one reads {FORMAT})"
        )


def check_ports(addresses: Iterable[str]) -> None:
    """Raise CommandError naming the first port that somebody listens on."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError:
                raise CommandError(
                    f"port {port} is in use; choose others with --port-base"
                ) from None
