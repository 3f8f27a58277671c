"""Run the benchmarks named on the command line, or all quick ones.

    python -m tests.bench NAME [--option ...]
    python -m tests.bench [NAME ...]        (without a name: all but those in ON_REQUEST)

Each `bench_NAME.py` beside this file has a `main()` that prints its figures; options go to the
one benchmark that is named before them, and `NAME --help` lists them.
"""

from __future__ import annotations

import importlib
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil

# These take long, or data of one's own: they run only when they are named.
ON_REQUEST = {"soak", "peers", "answers_by_kind", "vllm"}


def main() -> None:
    """Print the machine, then run."""
    folder = Path(__file__).parent
    known = sorted(p.stem.removeprefix("bench_") for p in folder.glob("bench_*.py"))
    chosen, options = _split(sys.argv[1:])
    unknown = set(chosen) - set(known)
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {known}")
    if options and len(chosen) != 1:
        raise SystemExit("options need the name of the one benchmark that they are for")
    print(
        f"{datetime.now(UTC):%Y-%m-%d} {platform.system()} {platform.machine()}, "
        f"{psutil.cpu_count()} cores, Python {platform.python_version()}"
    )
    for name in chosen or [name for name in known if name not in ON_REQUEST]:
        print(f"\n== {name}", flush=True)
        sys.argv = [f"bench_{name}", *options]
        status = importlib.import_module(f"tests.bench.bench_{name}").main()
        if status:
            raise SystemExit(status)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The names, and the options that follow them."""
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            return arguments[:place], arguments[place:]
    return arguments, []


if __name__ == "__main__":
    main()
