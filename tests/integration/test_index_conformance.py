"""What every implementation of VectorIndex must do: the embedded index and Qdrant's client.

The embedded index runs in its real worker process. Qdrant's client is tested in its local mode,
over gRPC against our own server (tests/support/qdrant_server), and against a real server where
``QDRANT_URL`` (and ``QDRANT_API_KEY``) name one.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from services.memory.index import IndexEntry, IndexHit, IndexPoint, VectorIndex
from services.memory.index.edge import EdgeIndex, edge_supervisor
from services.memory.index.qdrant import QdrantIndex, qdrant_client
from services.memory.recall import MemoryFilter, SparseVector
from services.runtime.process import socket_folder
from tests.support.qdrant_server import running_qdrant

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]

DIMENSIONS = 8
NOON = datetime(2026, 5, 8, 12, tzinfo=UTC)


def direction(axis: int, share: float = 1.0) -> list[float]:
    """A unit vector that points ``share`` along one axis and the rest along the next."""
    vector = np.zeros(DIMENSIONS)
    vector[axis], vector[(axis + 1) % DIMENSIONS] = share, (1 - share**2) ** 0.5
    return [float(x) for x in vector]


def point(number: int, *, axis: int = 0, share: float = 1.0, term: int = 7) -> IndexPoint:
    """A point of user ``ann`` with number ``number``."""
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
        time=NOON + timedelta(minutes=number),
        dense=np.array(direction(axis, share), "<f2").tobytes(),
        sparse=SparseVector((term,), (float(number),)),
        metadata={},
    )


def ids(found: Sequence[IndexHit] | Sequence[IndexEntry]) -> list[int]:
    """The numbers of what was found, in its order."""
    return [uuid.UUID(item.memory_id).int for item in found]


@asynccontextmanager
async def edge_index(folder: Path) -> AsyncIterator[VectorIndex]:
    """The embedded index in its worker process."""
    worker = edge_supervisor(folder / "index", DIMENSIONS, socket_folder(folder))
    edge = EdgeIndex(worker)
    await edge.start()
    await worker.ready(60)
    yield edge
    await edge.close()


@asynccontextmanager
async def local_index(folder: Path) -> AsyncIterator[VectorIndex]:
    """qdrant-client's local mode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect")
        local = QdrantIndex(AsyncQdrantClient(":memory:"), "memories", DIMENSIONS)
        await local.generation()
    yield local
    await local.close()


@asynccontextmanager
async def served_index(folder: Path) -> AsyncIterator[VectorIndex]:
    """The real gRPC client on our own server over the edge engine."""
    with running_qdrant(folder / "qdrant") as server:
        remote = QdrantIndex(qdrant_client(server.url), "memories", DIMENSIONS)
        yield remote
        await remote.close()


@asynccontextmanager
async def real_index(folder: Path) -> AsyncIterator[VectorIndex]:
    """A real Qdrant server, by URL; the collection is of this run only."""
    client = qdrant_client(os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY"))
    remote = QdrantIndex(client, f"conformance_{uuid.uuid4().hex}", DIMENSIONS)
    yield remote
    await remote.drop()
    await remote.close()


KINDS = {"edge": edge_index, "local": local_index, "served": served_index} | (
    {"real": real_index} if os.environ.get("QDRANT_URL") else {}
)


@pytest_asyncio.fixture(params=KINDS, scope="module", loop_scope="module")
async def shared_index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VectorIndex]:
    """One index of each kind for all tests: a process takes seconds to start."""
    async with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def index(shared_index: VectorIndex) -> VectorIndex:
    """The index with nothing of the people whom the tests know."""
    for tenant_id, user_id in (("acme", "ann"), ("acme", "bob"), ("evil", "ann")):
        entries = await shared_index.scroll(tenant_id, user_id, None, 1000)
        await shared_index.delete(tenant_id, user_id, [entry.memory_id for entry in entries])
    return shared_index


async def test_index_dense_search_returns_the_nearest_first_with_their_versions(
    index: VectorIndex,
) -> None:
    await index.upsert([point(1, share=0.6), replace(point(2), version=5), point(3, axis=3)])
    hits = await index.search_dense("acme", "ann", direction(0), 2)
    assert ids(hits) == [2, 1]
    assert [hit.version for hit in hits] == [5, 1]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.6], abs=2e-3)


async def test_index_sparse_search_scores_by_dot_product_and_leaves_out_zero(
    index: VectorIndex,
) -> None:
    await index.upsert([point(1), point(2), point(3, term=2**32 - 1)])
    hits = await index.search_sparse("acme", "ann", SparseVector((7,), (0.5,)), 10)
    assert ids(hits) == [2, 1]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5])
    high = await index.search_sparse("acme", "ann", SparseVector((2**32 - 1,), (1.0,)), 10)
    assert ids(high) == [3]
    assert await index.search_sparse("acme", "ann", SparseVector((), ()), 10) == []


async def test_index_sparse_scores_do_not_depend_on_what_else_is_stored(
    index: VectorIndex,
) -> None:
    """The query carries our own IDF, over one user: an engine's IDF over all would change it."""
    query = SparseVector((7, 8), (0.5, 2.0))
    await index.upsert([point(1), point(2, term=8)])
    alone = await index.search_sparse("acme", "ann", query, 10)
    others = [replace(point(n), user_id="bob") for n in range(3, 203)]
    await index.upsert([*others, *(point(n, term=9) for n in range(203, 303))])
    crowded = await index.search_sparse("acme", "ann", query, 10)
    assert alone == crowded
    assert [(uuid.UUID(hit.memory_id).int, hit.score) for hit in alone] == [(2, 4.0), (1, 0.5)]


async def test_index_never_shows_anything_of_another_user_or_tenant(index: VectorIndex) -> None:
    mine, theirs, same_name = point(1), point(2), point(3)
    theirs, same_name = replace(theirs, user_id="bob"), replace(same_name, tenant_id="evil")
    await index.upsert([mine, theirs, same_name])
    assert ids(await index.search_dense("acme", "ann", direction(0), 10)) == [1]
    assert ids(await index.search_sparse("acme", "ann", SparseVector((7,), (1.0,)), 10)) == [1]
    assert ids(await index.scroll("acme", "ann", None, 10)) == [1]
    assert await index.count("acme", "ann") == 1
    assert await index.count("acme", "nobody") == 0


@pytest.mark.parametrize(("tenant", "user"), [("", "ann"), ("acme", "")])
async def test_index_refuses_to_ask_across_users(
    index: VectorIndex, tenant: str, user: str
) -> None:
    with pytest.raises(ValueError, match="tenant and a user"):
        await index.search_dense(tenant, user, direction(0), 1)
    with pytest.raises(ValueError, match="tenant and a user"):
        await index.search_sparse(tenant, user, SparseVector((7,), (1.0,)), 1)
    with pytest.raises(ValueError, match="tenant and a user"):
        await index.delete(tenant, user, [str(uuid.UUID(int=1))])
    with pytest.raises(ValueError, match="tenant and a user"):
        await index.count(tenant, user)


async def test_index_delete_removes_ones_own_points_only(index: VectorIndex) -> None:
    await index.upsert([point(1), point(2), replace(point(3), user_id="bob")])
    await index.delete("acme", "ann", [str(uuid.UUID(int=n)) for n in (2, 3, 99)])
    assert ids(await index.scroll("acme", "ann", None, 10)) == [1]
    assert await index.count("acme", "bob") == 1
    await index.delete("acme", "ann", [])
    assert await index.count("acme", "ann") == 1


async def test_index_upsert_replaces_a_point_of_the_same_id_entirely(index: VectorIndex) -> None:
    first = replace(point(1), metadata={"mood": "sad"})
    await index.upsert([first])
    await index.upsert([replace(point(1, axis=4, term=8), version=2)])
    (hit,) = await index.search_dense("acme", "ann", direction(4), 10)
    assert hit.version == 2
    assert hit.score == pytest.approx(1.0, abs=2e-3)
    assert await index.search_sparse("acme", "ann", SparseVector((7,), (1.0,)), 10) == []
    sad = MemoryFilter(metadata={"mood": "sad"})
    assert await index.search_dense("acme", "ann", direction(4), 10, sad) == []
    assert await index.count("acme", "ann") == 1


async def test_index_searches_both_ways_in_one_call_for_the_right_person(
    index: VectorIndex,
) -> None:
    """Dense hits, then sparse ones, each with the whole limit and the same filter."""
    other = replace(point(3), user_id="bob")
    await index.upsert([replace(point(1), dense=None), point(2), other])
    words, nothing = SparseVector((7,), (1.0,)), SparseVector((), ())
    assert ids(await index.search_both("acme", "ann", direction(0), words, 10)) == [2, 2, 1]
    assert ids(await index.search_both("acme", "ann", direction(0), nothing, 10)) == [2]
    sad = MemoryFilter(metadata={"mood": "sad"})
    assert await index.search_both("acme", "ann", direction(0), words, 10, sad) == []
    with pytest.raises(ValueError, match="tenant"):
        await index.search_both("", "ann", direction(0), words, 10)


async def test_index_finds_a_point_without_a_dense_vector_by_its_words(index: VectorIndex) -> None:
    wordless = replace(point(2), sparse=SparseVector((), ()))
    await index.upsert([replace(point(1), dense=None), wordless])
    assert ids(await index.search_dense("acme", "ann", direction(0), 10)) == [2]
    assert ids(await index.search_sparse("acme", "ann", SparseVector((7,), (1.0,)), 10)) == [1]
    assert await index.count("acme", "ann") == 2


ODD = {'key with "quotes" [and] dots.': "v=1", "k": "v"}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (MemoryFilter(since=NOON + timedelta(minutes=3)), [3, 4]),
        (MemoryFilter(until=NOON + timedelta(minutes=3)), [1, 2]),
        (
            MemoryFilter(
                since=NOON + timedelta(minutes=2),
                until=NOON + timedelta(minutes=2, microseconds=1),
            ),
            [2],
        ),
        (MemoryFilter(conversation_id="c2"), [2]),
        (MemoryFilter(speaker="Echo"), [3]),
        (MemoryFilter(kinds=frozenset(("fact", "preference"))), [4]),
        (MemoryFilter(metadata=ODD), [1]),
        (MemoryFilter(metadata={"k": "v"}), [1, 2]),
        (MemoryFilter(metadata={"k": "v", "x": "y"}), []),
        (MemoryFilter(speaker="Ann", conversation_id="c2", metadata={"k": "v"}), [2]),
        (MemoryFilter(), [1, 2, 3, 4]),
    ],
)
async def test_index_filters_mean_the_same_in_both_searches_and_for_candidates(
    index: VectorIndex, filters: MemoryFilter, expected: list[int]
) -> None:
    await index.upsert(
        [
            replace(point(1), metadata=ODD),
            replace(point(2), conversation_id="c2", metadata={"k": "v"}),
            replace(point(3), speaker="Echo", role="assistant", metadata={"k": "w"}),
            replace(point(4), kind="fact", conversation_id=None, seq=None),
        ]
    )
    dense = await index.search_dense("acme", "ann", direction(0), 10, filters)
    sparse = await index.search_sparse("acme", "ann", SparseVector((7,), (1.0,)), 10, filters)
    assert sorted(ids(dense)) == sorted(ids(sparse)) == expected


async def test_index_scroll_pages_through_all_ids_in_order_exactly_once(index: VectorIndex) -> None:
    numbers = [5, 1, 2**127, 300, 2**128 - 1, 7]
    await index.upsert([replace(point(1), memory_id=str(uuid.UUID(int=n))) for n in numbers])
    seen: list[IndexEntry] = []
    while page := await index.scroll("acme", "ann", seen[-1].memory_id if seen else None, 2):
        assert len(page) <= 2
        seen += page
    assert ids(seen) == sorted(numbers)
    assert {entry.version for entry in seen} == {1}


async def test_index_generation_stays_the_same_while_it_lives(index: VectorIndex) -> None:
    before = await index.generation()
    await index.upsert([point(1)])
    await index.delete("acme", "ann", [point(1).memory_id])
    assert before == await index.generation() != ""


async def test_index_takes_a_bulk_of_points_in_one_call(index: VectorIndex) -> None:
    await index.upsert([point(n, axis=n % DIMENSIONS) for n in range(1, 501)])
    await index.upsert([])
    assert await index.count("acme", "ann") == 500
    best = await index.search_sparse("acme", "ann", SparseVector((7,), (1.0,)), 3)
    assert ids(best) == [500, 499, 498]
