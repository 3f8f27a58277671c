"""Every SDK passes every case against a live mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.cases import all_cases
from tests.conformance.judging import Performances, driver
from tests.conformance.packages import SDKS
from tests.conformance.sdk import Sdk
from tests.conformance.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")
CASES = all_cases()
# More would make two cores so slow that replies are late for their tiers.
_AT_ONCE = 6


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def performances(
    request: pytest.FixtureRequest, world: World, sdks: dict[str, Sdk]
) -> AsyncIterator[Performances]:
    """All that was asked for of what follows, begun."""
    made = Performances(world, _AT_ONCE)
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test_case.__name__:
            chosen = item.callspec.params
            if chosen["sdk"] in sdks:
                made.begin(CASES[chosen["name"]], sdks[chosen["sdk"]])
    yield made
    await made.stop()


@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("name", CASES)
async def test_case(name: str, sdk: str, sdks: dict[str, Sdk], performances: Performances) -> None:
    driver(sdks, sdk)
    await performances.outcome(name, sdk)
