"""Fault 18: ids of somebody else in every id field of every RPC, and nothing comes of it.

`ECHOMESH_PROBES` says how many; `python -m tests.faults.attack.foreign` sends 100,000.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor

from echomesh import Client, EchomeshError
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from tests.faults.attack.foreign import attack, is_id
from tests.faults.attack.rpcs import Caller, all_rpcs
from tests.faults.attack.victims import World, make_world
from tests.support.mesh import running_mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

PROBES = int(os.environ.get("ECHOMESH_PROBES", "5000"))
# Fields whose names look like an id's and that say something else, or nothing by themselves.
_NO_IDS = {"tool_call_id"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A mesh with a victim in one tenant, and others there and in another."""
    folder: Path = tmp_path_factory.mktemp("foreign") / "data"
    with running_mesh(folder) as mesh:
        async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as operator:
            made = await make_world(mesh, operator)
            yield made
            await made.attackers["boss"].close()


def _id_like(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> set[str]:
    """Fields of a message and of those inside it whose name ends like an id's."""
    found = set()
    for field in descriptor.fields:
        if field.message_type and field.message_type.full_name not in seen:
            found |= _id_like(field.message_type, seen | {descriptor.full_name})
        elif field.name.endswith(("id", "ids")) and not is_id(field):
            found.add(f"{descriptor.name}.{field.name}")
    return {name for name in found if name.rpartition(".")[2] not in _NO_IDS}


async def test_no_id_field_is_forgotten() -> None:
    """A field that is added with a name like an id's is probed from then on."""
    assert [f for rpc in all_rpcs() for f in _id_like(rpc.method.input_type)] == []


async def test_foreign_ids_tell_nothing_and_change_nothing(world: World) -> None:
    """No probe is accepted, no answer or error holds the victim's words or other ids of theirs."""
    before = await world.victim.state()

    report = await attack(world, PROBES)

    assert report.leaks == []
    assert report.found == []
    assert report.answers["NOT_FOUND"] > PROBES / 20
    assert report.answers["PERMISSION_DENIED"] > PROBES / 20
    assert await world.victim.state() == before


@pytest.mark.parametrize("who", ["neighbour", "stranger", "boss"])
async def test_nobody_goes_on_from_somebody_elses_message(world: World, who: str) -> None:
    """A branch from a foreign message is NOT_FOUND; it would show what was said before it."""
    for message_id in world.victim.ids["message"]:
        with pytest.raises(EchomeshError) as refused:
            await world.attackers[who].reply(
                "And what else?", conversation_id="mine", parent_message_id=message_id
            )
        assert refused.value.reason == "NOT_FOUND"


async def test_the_victim_still_gets_in_with_their_own_key(world: World) -> None:
    """After all guesses: a key's public part known to others locks nobody out."""
    caller = Caller(world.mesh)
    stub = auth_pb2_grpc.AuthServiceStub(caller.channel("auth", "public"))
    guess = f"em_{world.victim.ids['key'][0]}_{'A' * 43}"
    for _ in range(50):
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await stub.ExchangeApiKey(auth_pb2.ExchangeApiKeyRequest(api_key=guess), timeout=10)
        assert wrong.value.code() is grpc.StatusCode.UNAUTHENTICATED
    right = auth_pb2.ExchangeApiKeyRequest(api_key=world.victim.key)
    assert (await stub.ExchangeApiKey(right, timeout=10)).tokens.access_token
    await caller.close()
