"""Run the benchmarks named on the command line, or all of them.

    python -m tests.bench [NAME ...]

Each `bench_NAME.py` beside this file has a `main()` that prints its figures.
"""

from __future__ import annotations

import importlib
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil


def main() -> None:
    """Print the machine, then run."""
    known = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))
    chosen = sys.argv[1:] or known
    unknown = set(chosen) - set(known)
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {known}")
    print(
        f"{datetime.now(UTC):%Y-%m-%d} {platform.system()} {platform.machine()}, "
        f"{psutil.cpu_count()} cores, Python {platform.python_version()}"
    )
    for name in chosen:
        print(f"\n== {name}")
        # A benchmark that takes options of its own runs with its defaults here.
        sys.argv = [f"bench_{name}"]
        importlib.import_module(f"tests.bench.bench_{name}").main()


if __name__ == "__main__":
    main()
