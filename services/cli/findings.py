"""What `echomesh doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `advice` says what to do if it is not `ok`."""

    part: str
    ok: bool
    detail: str
    advice: str = ""
