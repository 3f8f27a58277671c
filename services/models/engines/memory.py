"""How much memory a model may take here: what the machine has, or what its container may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
# By cgroup version: the files with the limit and the use, and what of the use is files that are
# merely kept in memory and make room when asked to. A model that was read before is among those.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_{}_file"),
    2: ("memory.max", "memory.current", "{}_file"),
}


def available_bytes(own: Path = _OWN, root: Path = _ROOT) -> int:
    """Return the bytes that can be taken: the machine's, or fewer in a group with a limit.

    Args:
        own: says which control groups this process is in.
        root: where the groups are mounted.

    """
    groups = _left_in_groups(own, root)
    return max(0, min([int(psutil.virtual_memory().available), *groups]))


def _left_in_groups(own: Path, root: Path) -> Iterator[int]:
    """What is left in this process's group and in each above it, where there is a limit.

    Inside a container the group may be named as it is outside: only the top is to be found then.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, name = line.split(":", 2)
        group = Path(name)
        for path in (group, *group.parents):
            below = path.as_posix().lstrip("/")
            if number == "0":
                yield from _left(root / below, 2)
            elif "memory" in controllers.split(","):
                yield from _left(root / "memory" / below, 1)


def _left(folder: Path, version: int) -> Iterator[int]:
    limit, used, kept = _FILES[version]
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        room = int((folder / limit).read_text()) - int((folder / used).read_text())
    except (OSError, ValueError):
        return  # no such group, or "max": no limit
    yield room + sum(int(stat.get(kept.format(state), 0)) for state in ("active", "inactive"))
