"""Python's garbage collector, set for a server: it need not look at what stays for good."""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000
"""Collected after this many: a recall makes thousands, and nearly all go by reference count."""


def settle() -> None:
    """Call once all is loaded: what is there now is left out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
