"""The examples of every SDK run as their first lines say."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.packages import SDKS, Package
from tests.conformance.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def output(command: list[str], *arguments: str) -> str:
    """What a program prints; it is an error if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return said.decode()


@pytest.mark.parametrize("sdk", SDKS)
async def test_the_examples_print_a_reply(
    sdk: str, world: World, packages: dict[str, Package]
) -> None:
    if sdk not in packages:
        pytest.skip(f"the tools of {sdk} are not on this machine")
    examples = packages[sdk].examples
    arguments = (world.address, world.api_key)
    streamed = await output(examples["stream_a_reply"], *arguments, "Hello!")
    assert streamed.count("stop after") == 1
    # Which of the two said it is no matter: a reply that is late for its tier is quoted.
    asked = await output(examples["remember_and_ask"], *arguments)
    assert "Hello there" in asked or "blue fence" in asked
