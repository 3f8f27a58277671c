"""Run a command whose cores are taken away in bursts, as a busy host does: Linux, root.

    python3 scripts/starved.py [--seed N] COMMAND...

It goes into a control group whose share of the cores changes every few seconds. What passes on an
idle machine and fails here depends on time although it should not. Exits as the command does.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
SHARES = (1.0, 0.6, 0.4, 0.2, 0.1)
LONGEST_S = 10.0


@contextlib.contextmanager
def starvable_group() -> Iterator[Callable[[float], None]]:
    """Put this process into a group of its own; what is yielded sets the group's share."""
    second = (ROOT / "cgroup.controllers").exists()
    above = ROOT if second else ROOT / "cpu"
    group = above / f"starved-{os.getpid()}"
    group.mkdir()
    period_us = PERIOD_US * (os.cpu_count() or 1)

    def give(share: float) -> None:
        quota_us = int(share * period_us)
        if second:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))

    try:
        give(1.0)
        (group / "cgroup.procs").write_text("0")
        yield give
    finally:
        (above / "cgroup.procs").write_text("0")
        # What the command left running keeps its group.
        with contextlib.suppress(OSError):
            group.rmdir()


def main() -> int:
    """Run the command to its end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0, help="of the shares and their lengths")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if not asked.command:
        parser.error("no command")
    chance = random.Random(asked.seed)  # noqa: S311 - nothing is kept secret with it
    try:
        with starvable_group() as give, subprocess.Popen(asked.command) as process:
            while True:
                give(chance.choice(SHARES))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(chance.uniform(1.0, LONGEST_S))
    except OSError as error:
        print(f"starved: {error.filename}: {error.strerror} (needs root and the cpu controller)")
        return 1


if __name__ == "__main__":
    sys.exit(main())
