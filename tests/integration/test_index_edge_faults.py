"""The embedded index is derived: whatever happens to its folder or process, memory goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from services.memory.index import NO_FILTER, IndexPoint
from services.memory.index import edge_shard as shards
from services.memory.index.edge import EdgeIndex, edge_supervisor
from services.memory.index.edge_shard import EdgeShard, FolderInUseError
from services.memory.index.payload import conditions
from services.memory.index.qdrant import QdrantIndex, qdrant_client
from services.memory.recall import SparseVector
from services.runtime.errors import AppError, Reason
from services.runtime.process import is_alive, socket_folder

DIMENSIONS = 8
OWNER = conditions("acme", "ann", NO_FILTER)


def point(number: int) -> IndexPoint:
    """A point of user ``ann``."""
    dense = np.eye(DIMENSIONS)[number % DIMENSIONS].astype("<f2").tobytes()
    return IndexPoint(
        tenant_id="acme",
        user_id="ann",
        memory_id=str(uuid.UUID(int=number)),
        version=1,
        conversation_id="c1",
        seq=number,
        speaker="Ann",
        role="user",
        kind="episodic",
        time=datetime(2026, 5, 8, tzinfo=UTC),
        dense=dense,
        sparse=SparseVector((7,), (1.0,)),
    )


@asynccontextmanager
async def closed_port() -> AsyncIterator[int]:
    """A port that is taken but on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds a shard with three points."""
    shard = EdgeShard(tmp_path / "index", DIMENSIONS)
    shard.upsert([point(n) for n in (1, 2, 3)])
    shard.close()
    return tmp_path / "index"


def test_index_folder_opened_again_has_the_same_points_and_generation(folder: Path) -> None:
    first = EdgeShard(folder, DIMENSIONS)
    generation = first.generation
    first.close()
    again = EdgeShard(folder, DIMENSIONS)
    assert (again.generation, again.count(OWNER)) == (generation, 3)
    again.close()


def truncated(folder: Path) -> None:
    """Cut every data file of the shard short."""
    for file in (folder / "segments").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: (f / "edge_config.json").write_text("{"), id="config"),
        pytest.param(lambda f: (f / shards.MARKER).unlink(), id="no marker"),
        pytest.param(lambda f: (f / shards.MARKER).write_text("[1]"), id="odd marker"),
        pytest.param(lambda f: shutil.rmtree(f / "segments"), id="no segments"),
        pytest.param(truncated, id="truncated"),
        pytest.param(lambda f: (f / shards.OPENING).write_bytes(b".."), id="ends its process"),
    ],
)
def test_index_folder_that_is_broken_starts_anew_under_another_generation(
    folder: Path, damage: object
) -> None:
    before = EdgeShard(folder, DIMENSIONS)
    generation = before.generation
    before.close()
    assert callable(damage)
    damage(folder)
    shard = EdgeShard(folder, DIMENSIONS)
    assert shard.generation != generation
    assert shard.count(OWNER) == 0
    shard.upsert([point(1)])
    assert shard.count(OWNER) == 1
    shard.close()


def test_index_folder_of_other_dimensions_starts_anew(folder: Path) -> None:
    shard = EdgeShard(folder, DIMENSIONS * 2)
    assert shard.count(OWNER) == 0
    shard.close()
    assert (folder.parent / "index.broken").is_dir()


def test_index_folder_opens_in_one_process_only_and_is_left_alone_by_the_second(
    folder: Path,
) -> None:
    shard = EdgeShard(folder, DIMENSIONS)
    with pytest.raises(FolderInUseError):
        EdgeShard(folder, DIMENSIONS)
    assert shard.count(OWNER) == 3
    shard.close()


def test_index_optimizes_on_the_way_and_keeps_every_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "OPTIMIZE_EVERY_POINTS", 10)
    shard = EdgeShard(folder, DIMENSIONS)
    for start in range(0, 60, 6):
        shard.upsert([point(n) for n in range(start + 1, start + 7)])
    assert shard.count(OWNER) == 60
    shard.close()


async def test_index_worker_killed_loses_nothing_acknowledged_and_comes_back(
    tmp_path: Path,
) -> None:
    worker = edge_supervisor(tmp_path / "index", DIMENSIONS, socket_folder(tmp_path))
    index = EdgeIndex(worker)
    with pytest.raises(AppError) as away:
        await index.count("acme", "ann")
    assert away.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    await index.start()
    await worker.ready(60)
    generation = await index.generation()
    await index.upsert([point(n) for n in range(1, 200)])
    killed = worker.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(60):
        while worker.pid in (killed, None):
            await asyncio.sleep(0.02)
    await worker.ready(60)
    assert await index.count("acme", "ann") == 199
    assert await index.generation() == generation
    second = worker.pid
    await index.close()
    assert second is not None
    assert not is_alive(second)


async def test_index_refuses_a_vector_of_another_length_without_seeming_away(
    tmp_path: Path,
) -> None:
    """An index that seemed away would be tried for ever."""
    worker = edge_supervisor(tmp_path / "index", DIMENSIONS, socket_folder(tmp_path))
    index = EdgeIndex(worker)
    await index.start()
    await worker.ready(60)
    with pytest.raises(AppError) as refused:
        await index.upsert([replace(point(1), dense=b"\0" * 6)])
    assert refused.value.reason is Reason.INTERNAL
    await index.upsert([point(1)])
    assert await index.count("acme", "ann") == 1
    await index.close()


async def test_index_on_a_server_that_is_away_says_so() -> None:
    async with closed_port() as port:
        away = QdrantIndex(qdrant_client(f"http://127.0.0.1:{port}"), "memories", DIMENSIONS)
        with pytest.raises(AppError) as failed:
            await away.count("acme", "ann")
        assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        await away.close()


def test_a_full_segment_is_not_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting segments in order holds up all else: what it takes must not grow with the index."""
    monkeypatch.setattr(shards, "OPTIMIZE_EVERY_POINTS", 1500)
    dense = np.ones(4096, "<f2").tobytes()  # so wide that few points fill a segment
    shard = EdgeShard(tmp_path / "index", 4096)
    for start in range(1, 9_001, 500):
        numbers = range(start, start + 500)
        shard.upsert([replace(point(number), dense=dense) for number in numbers])
    assert shard.count(OWNER) == 9_000
    assert shard._shard.info().segments_count > 3
    shard.close()
