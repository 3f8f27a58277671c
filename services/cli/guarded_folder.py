"""A data folder that one `echomesh up` holds: its lock, its format, its ports."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from services.cli.files import CommandError
from services.cli.plan import FORMAT, Layout
from services.runtime.process import private_folder

_POLL_S = 0.1
# What a first start writes and some room to grow, and what a later one needs to run at all.
_FIRST_START_MB = 250
_LATER_START_MB = 50


@contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Hold the folder's lock; raises CommandError in one line if that cannot be."""
    try:
        _refuse_foreign(layout)
        private_folder(layout.data)
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CommandError(f"{layout.data} cannot be used: {error.strerror or error}") from None
    try:
        _lock(descriptor, layout)
        _check_disk(layout)
        _check_format(layout)
        layout.logs.mkdir(mode=0o700, exist_ok=True)
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CommandError(f"the disk of {layout.data} is full") from None
        raise
    finally:
        os.close(descriptor)


def _refuse_foreign(layout: Layout) -> None:
    """Leave alone a folder that holds something else; its mode would be changed too."""
    if not layout.data.exists() or layout.format.exists() or layout.lock.exists():
        return
    if not layout.data.is_dir() or any(layout.data.iterdir()):
        raise CommandError(f"{layout.data} holds something else: name a new folder with --data")


def _lock(descriptor: int, layout: Layout) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CommandError(f"a mesh is up on {layout.data} already") from None


def _check_disk(layout: Layout) -> None:
    """Stop before Postgres fails half-way, with reasons that do not name the disk."""
    needed_mb = _LATER_START_MB if layout.postgres.exists() else _FIRST_START_MB
    free_mb = shutil.disk_usage(layout.data).free // 2**20
    if free_mb < needed_mb:
        raise CommandError(
            f"the disk of {layout.data} is full: {free_mb} MB free, {needed_mb} MB needed"
        )


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


async def check_ports(addresses: Iterable[str], patience_s: float) -> None:
    """Raise CommandError naming the first port that somebody still listens on after `patience_s`.

    Services of a killed `echomesh up` end by themselves within seconds, but not at once.
    """
    ends = time.monotonic() + patience_s
    for address in addresses:
        while not _is_free(address):
            if time.monotonic() >= ends:
                port = address.rpartition(":")[2]
                raise CommandError(f"port {port} is in use; choose others with --port-base")
            await asyncio.sleep(_POLL_S)


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except (OSError, OverflowError):
            return False
    return True
