"""A data folder is one mesh's own, and what is wrong with it is told in one line."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from services.cli.files import CommandError
from services.cli.guarded_folder import check_ports, held
from services.cli.plan import FORMAT, SERVICES, Layout, Plan
from services.cli.stack import MAX_RESTARTS, Restarts


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


def test_a_part_is_restarted_five_times_a_minute_at_most() -> None:
    """The sixth crash within a minute is one too many; a minute later it counts anew."""
    restarts = Restarts()
    assert all(restarts.allowed(float(second)) for second in range(MAX_RESTARTS))
    assert not restarts.allowed(10.0)
    assert restarts.allowed(61.0)
