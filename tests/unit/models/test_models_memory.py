"""A model gets what the machine has, or the less that its container may take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from services.models.engines import memory
from services.models.engines.memory import available_bytes

GB = 10**9
V2 = ("memory.max", "memory.current", "active_file {}\ninactive_file {}\n")
V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "active_file 1\ntotal_active_file {}\ntotal_inactive_file {}\n",
)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GB available."""
    there = SimpleNamespace(available=8 * GB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: there)


def group(
    folder: Path, limit: object, used: int, kept: int = 0, form: tuple[str, str, str] = V2
) -> None:
    """A control group with a limit; of what is used, twice `kept` is files that can go."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / form[0]).write_text(f"{limit}\n")
    (folder / form[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(form[2].format(kept, kept))


def available(tmp_path: Path, groups: str) -> int:
    """What is available to a process in these groups."""
    own = tmp_path / "own"
    own.write_text(groups)
    return available_bytes(own, tmp_path / "root")


def test_without_control_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none", tmp_path) == 8 * GB


def test_a_container_has_what_is_left_below_its_limit(tmp_path: Path) -> None:
    group(tmp_path / "root", 4 * GB, 1 * GB)
    assert available(tmp_path, "0::/\n") == 3 * GB


def test_files_that_are_merely_kept_in_memory_make_room(tmp_path: Path) -> None:
    group(tmp_path / "root", 4 * GB, 3 * GB, kept=1 * GB)
    assert available(tmp_path, "0::/\n") == 3 * GB


def test_the_narrowest_of_the_groups_above_counts(tmp_path: Path) -> None:
    group(tmp_path / "root/slice", 2 * GB, 1 * GB)
    group(tmp_path / "root/slice/unit", 6 * GB, 1 * GB)
    assert available(tmp_path, "0::/slice/unit\n") == 1 * GB


def test_a_group_named_as_it_is_outside_is_found_at_the_top(tmp_path: Path) -> None:
    group(tmp_path / "root", 4 * GB, 1 * GB)
    assert available(tmp_path, "0::/docker/0123\n") == 3 * GB


def test_a_group_without_a_limit_takes_nothing_away(tmp_path: Path) -> None:
    group(tmp_path / "root", "max", 1 * GB)
    assert available(tmp_path, "0::/\n") == 8 * GB


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    group(tmp_path / "root/memory/docker", 4 * GB, 3 * GB, kept=GB // 2, form=V1)
    lines = "5:cpu,cpuacct:/docker\n4:memory:/docker\n0::/\n"
    assert available(tmp_path, lines) == 2 * GB


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    group(tmp_path / "root", 1 * GB, 2 * GB)
    assert available(tmp_path, "0::/\n") == 0
