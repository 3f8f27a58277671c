"""The index on a Qdrant server whose process, network and collections go wrong."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from services.memory.index import IndexPoint
from services.memory.index.qdrant import GRPC_PORT, QdrantIndex, qdrant_client
from services.memory.recall import SparseVector
from services.runtime.errors import AppError, Reason
from tests.support.network import network_to
from tests.support.qdrant_server import QdrantProcess, running_qdrant

DIMENSIONS = 8
COLLECTION = "memories"
NAME = f"{COLLECTION}_v1_{DIMENSIONS}"


def point(number: int) -> IndexPoint:
    """A point of user ``ann``."""
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
        dense=np.eye(DIMENSIONS)[number % DIMENSIONS].astype("<f2").tobytes(),
        sparse=SparseVector((7,), (1.0,)),
    )


def index_on(url: str, key: str | None = None, dimensions: int = DIMENSIONS) -> QdrantIndex:
    """A replica's index."""
    return QdrantIndex(qdrant_client(url, key), COLLECTION, dimensions)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantProcess]:
    """A server of the test's own."""
    with running_qdrant(tmp_path / "qdrant") as running:
        yield running


async def count(index: QdrantIndex) -> int | None:
    """Ann's points, or nothing while the server is away."""
    try:
        return await index.count("acme", "ann")
    except AppError as error:
        assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
        return None


async def counted(index: QdrantIndex, expected: int) -> None:
    """Wait until the index answers, with this many points."""
    async with asyncio.timeout(60):
        while await count(index) != expected:
            await asyncio.sleep(0.05)


async def test_qdrant_killed_loses_nothing_acknowledged_and_is_found_again(
    server: QdrantProcess,
) -> None:
    index = index_on(server.url)
    await index.upsert([point(n) for n in range(1, 200)])
    await index.delete("acme", "ann", [point(7).memory_id])
    generation = await index.generation()
    server.kill()
    assert await count(index) is None
    server.start()
    await counted(index, 198)
    assert await index.generation() == generation
    await index.close()


async def test_qdrant_that_lost_its_folder_is_another_life_and_is_used_again(
    tmp_path: Path,
) -> None:
    index = None
    generations = []
    for folder in ("first", "second"):
        with running_qdrant(tmp_path / folder, port=index[1] if index else 0) as server:
            index = index or (index_on(server.url), server.port)
            await counted(index[0], 0)
            await index[0].upsert([point(1)])
            assert await count(index[0]) == 1
            generations.append(await index[0].generation())
    assert generations[0] != generations[1]
    assert index is not None
    await index[0].close()


async def test_replicas_that_start_at_once_make_one_collection_and_agree_on_its_life(
    server: QdrantProcess,
) -> None:
    replicas = [index_on(server.url) for _ in range(8)]
    await asyncio.gather(*(replica.count("acme", "ann") for replica in replicas))
    await replicas[0].upsert([point(1)])
    assert {await replica.count("acme", "ann") for replica in replicas} == {1}
    assert len({await replica.generation() for replica in replicas}) == 1
    for replica in replicas:
        await replica.close()


async def test_collection_that_was_left_half_made_is_completed(server: QdrantProcess) -> None:
    """A replica was killed after it had made the collection and before it had done the rest."""
    raw = qdrant_client(server.url)
    dense = models.VectorParams(size=DIMENSIONS, distance=models.Distance.DOT)
    await raw.create_collection(
        NAME,
        vectors_config={"dense": dense},
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    made: list[str] = []
    index = QdrantIndex(_noting(raw, made), COLLECTION, DIMENSIONS)
    await index.upsert([point(1)])
    assert {"user_id", "tenant_id", "time_us"} <= set(made)
    assert await index.generation() != ""
    await index.close()


def _noting(client: AsyncQdrantClient, made: list[str]) -> AsyncQdrantClient:
    """Note the fields that are indexed."""
    create = client.create_payload_index

    async def noting(collection: str, field_name: str, *more: Any, **options: Any) -> Any:
        made.append(field_name)
        return await create(collection, field_name, *more, **options)

    client.create_payload_index = noting  # type: ignore[method-assign]
    return client


async def test_model_with_vectors_of_another_length_has_a_collection_of_its_own(
    server: QdrantProcess,
) -> None:
    index, wider = index_on(server.url), index_on(server.url, dimensions=DIMENSIONS * 2)
    await index.upsert([point(1)])
    assert await wider.count("acme", "ann") == 0
    await wider.upsert([replace(point(2), dense=np.eye(16)[0].astype("<f2").tobytes())])
    assert await index.count("acme", "ann") == await wider.count("acme", "ann") == 1
    assert await index.generation() != await wider.generation()
    await index.close()
    await wider.close()


async def test_qdrant_that_refuses_a_write_is_not_taken_for_away(server: QdrantProcess) -> None:
    """What seemed away would be tried for ever."""
    index = index_on(server.url)
    with pytest.raises(AppError) as refused:
        await index.upsert([replace(point(1), dense=b"\0" * 6)])
    assert refused.value.reason is Reason.INTERNAL
    await index.upsert([point(1)])
    assert await count(index) == 1
    await index.close()


async def test_write_that_qdrant_has_only_accepted_counts_as_not_done(
    server: QdrantProcess,
) -> None:
    """It is not found yet, but would be marked as indexed and no longer scored from the table."""
    raw = qdrant_client(server.url)
    index = QdrantIndex(raw, COLLECTION, DIMENSIONS)
    await index.generation()

    async def accepted(*arguments: Any, **options: Any) -> models.UpdateResult:
        return models.UpdateResult(status=models.UpdateStatus.ACKNOWLEDGED)

    raw.upsert = raw.delete = accepted  # type: ignore[method-assign]
    for write in (index.upsert([point(1)]), index.delete("acme", "ann", [point(1).memory_id])):
        with pytest.raises(AppError) as failed:
            await write
        assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    await index.close()


@pytest.mark.parametrize("fault", ["partition", "freeze"])
async def test_qdrant_that_answers_nothing_fails_calls_by_itself_and_is_used_again(
    server: QdrantProcess, fault: str
) -> None:
    """A dead connection is noticed: nobody else has to give up on every call."""
    with network_to(server.port) as network:
        index = index_on(network.url)
        await index.upsert([point(1)])
        network.partition() if fault == "partition" else server.freeze()
        async with asyncio.timeout(60):
            assert await count(index) is None
            assert await count(index) is None
        network.heal() if fault == "partition" else server.thaw()
        await counted(index, 1)
        await index.close()


async def test_qdrant_whose_connections_are_reset_is_used_again(server: QdrantProcess) -> None:
    with network_to(server.port) as network:
        index = index_on(network.url)
        for number in range(1, 6):
            await counted(index, number - 1)
            network.reset()
            await counted(index, number - 1)
            await index.upsert([point(number)])
        await index.close()


async def test_qdrant_is_found_on_a_network_slower_than_the_usual_time_for_connecting(
    server: QdrantProcess,
) -> None:
    with network_to(server.port) as network:
        network.delay(0.4)
        index = index_on(network.url)
        await counted(index, 0)
        await index.close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_qdrant_with_a_key_lets_in_only_who_has_it(tmp_path: Path) -> None:
    with running_qdrant(tmp_path / "qdrant", api_key="s3cret") as server:
        for key, expected in ((None, None), ("wrong", None), ("s3cret", 0)):
            index = index_on(server.url, key)
            assert await count(index) == expected
            await index.close()


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://qdrant", GRPC_PORT),
        ("http://qdrant:6333", GRPC_PORT),
        ("http://qdrant:6334", GRPC_PORT),
        ("http://127.0.0.1:7001", 7001),
        ("https://qdrant.example", GRPC_PORT),
        ("http://[::1]:6333", GRPC_PORT),
    ],
)
async def test_qdrant_url_names_the_port_for_grpc(url: str, port: int) -> None:
    client = qdrant_client(url)
    assert client.init_options["grpc_port"] == port
    await client.close()


@pytest.mark.parametrize("url", ["qdrant:6334", "", "http://", "ftp://qdrant"])
async def test_qdrant_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="looks like http"):
        qdrant_client(url)
