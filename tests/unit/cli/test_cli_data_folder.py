"""A data folder is one mesh's own, and what is wrong with it is told in one line."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.cli.files import CommandError, MeshFile, read_mesh, write_json
from services.cli.guarded_folder import check_ports, held
from services.cli.plan import FORMAT, SERVICES, Layout, Plan
from services.cli.settings_view import in_force


def test_a_second_mesh_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """The lock holds while the first is up, and is free again after it."""
    layout = Layout(tmp_path / "data")
    with held(layout), pytest.raises(CommandError, match=r"a mesh is up on .* already"):
        with held(layout):
            pass
    with held(layout):
        assert layout.data.stat().st_mode & 0o777 == 0o700


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    """Older code does not open what it cannot know."""
    layout = Layout(tmp_path / "data")
    with held(layout):
        layout.format.write_text(f"{FORMAT + 1}\n")
    with pytest.raises(CommandError, match="made by a newer release"), held(layout):
        pass


@pytest.mark.parametrize("content", ["", "one", None])
def test_a_broken_folder_is_refused(tmp_path: Path, content: str | None) -> None:
    """A format that is missing or no number means that something was lost."""
    layout = Layout(tmp_path / "data")
    with held(layout):
        layout.postgres.mkdir()
        layout.format.unlink()
        if content is not None:
            layout.format.write_text(content)
    with pytest.raises(CommandError, match="is broken"), held(layout):
        pass


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    """Neither its mode nor its content changes."""
    (tmp_path / "letter.txt").write_text("dear")
    tmp_path.chmod(0o755)
    with pytest.raises(CommandError, match="holds something else"), held(Layout(tmp_path)):
        pass
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


async def test_a_port_in_use_is_named() -> None:
    """The line says which port it is and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"port {port} is in use.*--port-base"):
            await check_ports([f"127.0.0.1:{port}"], patience_s=0)
    await check_ports([f"127.0.0.1:{port}"], patience_s=0)


def test_no_two_listeners_share_a_port(tmp_path: Path) -> None:
    """Every address of a mesh is its own, and moves with the port base."""
    first, second = (Plan(Layout(tmp_path), base).addresses() for base in (7400, 8400))
    assert max(Counter(first + second).values()) == 1


def test_only_a_service_with_a_schema_gets_a_database(tmp_path: Path) -> None:
    """Embeddings and models never see an address of Postgres."""
    plan = Plan(Layout(tmp_path), 7400)
    for name in SERVICES:
        keys = plan.environment(name, {})
        assert not any("DATABASE" in key for key in keys)
        assert f"ECHOMESH_{name.upper()}_MESH_ADDRESS" in keys


@pytest.mark.parametrize(("later", "needed_mb"), [(False, 250), (True, 50)])
def test_a_disk_that_is_too_full_is_refused_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bool, needed_mb: int
) -> None:
    """Said before Postgres fails half-way with reasons of its own; a later start needs less."""
    layout = Layout(tmp_path / "data")
    with held(layout):
        if later:
            layout.postgres.mkdir()

    def free(megabytes: int) -> None:
        usage = SimpleNamespace(total=2**40, used=0, free=megabytes * 2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    free(needed_mb - 1)
    refused = rf"the disk of .*data is full: {needed_mb - 1} MB free, {needed_mb} MB needed$"
    with pytest.raises(CommandError, match=refused), held(layout):
        pass
    free(needed_mb)
    with held(layout):
        pass


def test_a_disk_that_fills_up_during_the_start_is_one_line(tmp_path: Path) -> None:
    """Whichever write hits the end of the disk first."""
    with pytest.raises(CommandError, match=r"the disk of .* is full"):
        with held(Layout(tmp_path / "data")):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_mesh_whose_up_was_killed_is_not_up(tmp_path: Path) -> None:
    """Its file is still there, but nobody answers: that is said at once, with what to do."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    content = MeshFile(address="127.0.0.1:1", metrics={}, services={}, pid=ended.pid)
    write_json(tmp_path / "mesh.json", content.model_dump())
    with pytest.raises(CommandError, match=r"no mesh is up for .*`echomesh up --data"):
        read_mesh(tmp_path)
    write_json(tmp_path / "mesh.json", content.model_dump() | {"pid": os.getpid()})
    assert read_mesh(tmp_path).address == "127.0.0.1:1"


def test_settings_are_shown_whatever_the_mesh_file_holds(tmp_path: Path) -> None:
    """A file that was cut short costs the running ports, not the command."""
    (tmp_path / "mesh.json").write_text("{")
    lines = list(in_force(tmp_path))
    assert any("routing.public_address = 127.0.0.1:7400" in line for line in lines)
