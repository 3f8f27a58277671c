"""One mesh for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from echomesh import Client
from tests.support.mesh import RunningMesh, running_mesh


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A running mesh, shared."""
    with running_mesh(tmp_path_factory.mktemp("e2e") / "data") as running:
        yield running


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    """The first user of the shared mesh, who is also its app, admin and operator."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as made:
        yield made
