"""CPU time and size of a mesh by service, from the operating system's own accounts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import psutil

from tests.support.mesh import RunningMesh

POSTGRES, UP, OWN = "postgres", "echomesh up", "load generator"


def by_service(mesh: RunningMesh) -> dict[str, list[psutil.Process]]:
    """The mesh's processes by service; a service's workers have a line of their own."""
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    top = psutil.Process(mesh.process.pid)
    found[UP].append(top)
    for child in top.children():
        with suppress(psutil.NoSuchProcess):
            name = _service(child)
            found[name].append(child)
            below = name if name == POSTGRES else f"{name}'s worker"
            for grandchild in child.children(recursive=True):
                found[below].append(grandchild)
    return dict(found)


def _service(process: psutil.Process) -> str:
    for part in process.cmdline():
        if part.startswith("services.") and part.count(".") == 1:
            return str(part).removeprefix("services.")
    return POSTGRES


def cpu_s(mesh: RunningMesh) -> dict[str, float]:
    """CPU seconds used so far by service, ended children included, and by this process."""
    used = {name: sum(map(_cpu_s, group)) for name, group in by_service(mesh).items()}
    used[OWN] = _cpu_s(psutil.Process())
    return used


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def resident_mb(mesh: RunningMesh) -> dict[str, float]:
    """Proportional resident MB by service: what processes share is divided among them."""
    return {name: sum(map(size_mb, group)) for name, group in by_service(mesh).items()}


def size_mb(process: psutil.Process) -> float:
    """The proportional resident size of a process; 0 once it has ended."""
    try:
        info = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
    return float(getattr(info, "pss", 0) or info.rss) / 2**20


def spent_ms(
    before: Mapping[str, float], after: Mapping[str, float], messages: int
) -> dict[str, float]:
    """CPU milliseconds for each of `messages` between two readings of `cpu_s`."""
    return {name: 1000 * (after[name] - before.get(name, 0.0)) / messages for name in after}
