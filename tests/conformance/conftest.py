"""The packages, one live mesh and a driver of each SDK, for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress

import pytest
import pytest_asyncio

from tests.conformance.packages import SDKS, MissingToolError, Package
from tests.conformance.sdk import Sdk, running
from tests.conformance.world import World, live_world


@pytest.fixture(scope="session")
def building(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Package]]]:
    """Each SDK's package on its way, while the mesh starts."""
    folders = {name: tmp_path_factory.mktemp(name) for name in SDKS}
    with ThreadPoolExecutor() as threads:
        yield {name: threads.submit(build, folders[name]) for name, build in SDKS.items()}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(building: object, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A live mesh; the last test of all stops it."""
    async with live_world(tmp_path_factory.mktemp("conformance") / "data") as made:
        yield made


@pytest.fixture(scope="session")
def packages(building: dict[str, Future[Package]]) -> dict[str, Package]:
    """Each SDK that can be built here; the tests of another skip and say so."""
    built = {}
    for name, package in building.items():
        with suppress(MissingToolError):
            built[name] = package.result()
    return built


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sdks(world: World, packages: dict[str, Package]) -> AsyncIterator[dict[str, Sdk]]:
    """A running driver of each SDK that could be built here."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(running(name, package.driver))
            for name, package in packages.items()
        }
