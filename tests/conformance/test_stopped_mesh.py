"""No case passes when the mesh is stopped: one that did would not look at the mesh.

These tests stop it, and come last by the name of this file.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.conformance.cases import all_cases
from tests.conformance.judging import driver, perform
from tests.conformance.packages import SDKS
from tests.conformance.sdk import Sdk, SdkError
from tests.conformance.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")
CASES = all_cases()
# Long enough to be told that nobody listens.
_NOTHING_ANSWERS_S = 2.0

Outcomes = dict[str, BaseException | None]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcomes(world: World, sdks: dict[str, Sdk]) -> dict[str, Outcomes]:
    """What came of every case without a mesh, by SDK: what it raised."""
    await asyncio.to_thread(world.mesh.stop)
    nothing = replace(world, timeout_s=_NOTHING_ANSWERS_S)

    async def outcomes_of(sdk: Sdk) -> Outcomes:
        performed = (perform(case, nothing, sdk) for case in CASES.values())
        raised = await asyncio.gather(*performed, return_exceptions=True)
        return dict(zip(CASES, raised, strict=True))

    found = await asyncio.gather(*map(outcomes_of, sdks.values()))
    return dict(zip(sdks, found, strict=True))


@pytest.mark.parametrize("sdk", SDKS)
async def test_no_case_passes_when_the_mesh_is_stopped(
    sdk: str, outcomes: dict[str, Outcomes], sdks: dict[str, Sdk]
) -> None:
    driver(sdks, sdk)
    raised = outcomes[sdk]
    assert len(raised) >= 40
    assert [name for name, error in raised.items() if error is None] == []
    assert all(isinstance(error, SdkError | AssertionError) for error in raised.values()), raised
