"""What every benchmark prints: its command, machine and date, then Markdown tables."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import psutil

from tests.bench.figures import percentile


def heading(name: str) -> None:
    """Print how this run was started, where and when."""
    options = " ".join(sys.argv[1:])
    memory_gib = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    print(f"## `python -m tests.bench {' '.join([name, options]).strip()}`")
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.system()} {platform.machine()}, "
        f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}, "
        f"load {load:.1f} at the start\n",
        flush=True,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table; numbers with a point are rounded to what they are good for."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row) + " |")
    print(flush=True)


def note(text: str) -> None:
    """Print a remark below a table."""
    print(f"{text}\n", flush=True)


def progress(text: str) -> None:
    """Say on standard error what goes on, so that the tables stay clean."""
    print(text, file=sys.stderr, flush=True)


def times_ms(values_s: Sequence[float], percents: Sequence[float] = (50, 95, 99)) -> list[str]:
    """Percentiles of seconds as cells in milliseconds; a dash where there is no value."""
    if not values_s:
        return ["-"] * len(percents)
    return [f"{1000 * percentile(values_s, percent):.1f} ms" for percent in percents]


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
