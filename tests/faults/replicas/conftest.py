"""One mesh of replicas for all tests here, whole again after every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from echomesh import Client
from tests.faults.mesh import ReplicaMesh, replica_mesh
from tests.support.qdrant_server import QdrantProcess, running_qdrant


@pytest.fixture(scope="package")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantProcess]:
    """The index that both memory replicas share."""
    with running_qdrant(tmp_path_factory.mktemp("qdrant") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def replicas(
    tmp_path_factory: pytest.TempPathFactory, qdrant: QdrantProcess
) -> AsyncIterator[ReplicaMesh]:
    """The mesh that the tests share."""
    data = tmp_path_factory.mktemp("replicas") / "data"
    environments = {"memory": {"ECHOMESH_MEMORY_QDRANT_URL": qdrant.url}}
    async with replica_mesh(data, environments) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="package")
async def mesh(replicas: ReplicaMesh) -> AsyncIterator[ReplicaMesh]:
    """The mesh, in which every replica is up again after the test."""
    yield replicas
    await replicas.restore()


@pytest_asyncio.fixture(loop_scope="package")
async def client(mesh: ReplicaMesh) -> AsyncIterator[Client]:
    """The first user, who is also its app; a client of its own for each test."""
    async with mesh.client() as made:
        yield made
