"""Nobody reaches what is not theirs: generated over every RPC of the public listeners."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from echomesh import Client, EchomeshError
from echomesh._session import Deadline
from echomesh.auth.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from echomesh.common.v1 import options_pb2
from tests.support.contracts import access, call, methods, path
from tests.support.mesh import RunningMesh

ALL = [m for m in methods() if "worker" not in path(m)]
CLIENT_FACING = [m for m in ALL if path(m).split(".")[1] in {"auth", "memory", "routing"}]
NEEDS_TOKEN = [m for m in CLIENT_FACING if access(m) != options_pb2.ACCESS_PUBLIC]
INTERNAL = [m for m in CLIENT_FACING if access(m) == options_pb2.ACCESS_SERVICE]


def public_address(mesh: RunningMesh, method: MethodDescriptor) -> str:
    """Where the service of a method listens for clients."""
    offset = {"routing": 0, "auth": 1, "memory": 2}[path(method).split(".")[1]]
    return f"127.0.0.1:{mesh.port_base + offset}"


async def answer(mesh: RunningMesh, method: MethodDescriptor, request: Any, token: str = "") -> Any:
    """The status code a bare call ends with."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    async with grpc.aio.insecure_channel(public_address(mesh, method)) as channel:
        try:
            result = call(channel, method, request, timeout=10, metadata=metadata)
            if method.server_streaming:
                async for _ in result:
                    pass
            else:
                await result
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", NEEDS_TOKEN, ids=path)
async def test_without_a_token_every_rpc_but_the_public_ones_is_refused(
    mesh: RunningMesh, method: MethodDescriptor
) -> None:
    request = GetMessageClass(method.input_type)()
    refused = {grpc.StatusCode.UNAUTHENTICATED}
    if method in INTERNAL:
        refused.add(grpc.StatusCode.PERMISSION_DENIED)
    assert await answer(mesh, method, request) in refused
    assert await answer(mesh, method, request, token="junk.junk.junk") in refused


@pytest.mark.parametrize("method", INTERNAL, ids=path)
async def test_internal_rpcs_are_closed_to_clients_whatever_their_token(
    mesh: RunningMesh, client: Client, method: MethodDescriptor
) -> None:
    token = await client._tokens.access_token(Deadline(10))
    request = GetMessageClass(method.input_type)()
    assert await answer(mesh, method, request, token) is grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
async def foreign_ids(client: Client) -> AsyncIterator[dict[str, str]]:
    """Ids that exist and belong to somebody else."""
    owner = client.as_user(f"owner-{uuid.uuid4()}")
    memory = await owner.remember("The owner's secret.")
    conversation = f"owners-{uuid.uuid4()}"
    await owner.reply("A private thought.", conversation_id=conversation)
    message = [m async for m in owner.messages(conversation)][0]
    yield {
        "memory_id": memory.id,
        "conversation_id": conversation,
        "message_id": message.id,
    }


_BY_ID = [
    m
    for m in NEEDS_TOKEN
    if m not in INTERNAL
    and m.name.startswith(("Get", "Delete", "Forget", "List", "Update"))
    and {"memory_id", "conversation_id", "message_id", "memory"} & set(m.input_type.fields_by_name)
]


@pytest.mark.parametrize("method", _BY_ID, ids=path)
async def test_a_foreign_id_does_not_exist(
    mesh: RunningMesh,
    client: Client,
    foreign_ids: dict[str, str],
    method: MethodDescriptor,
) -> None:
    stranger = client.as_user(f"stranger-{uuid.uuid4()}")
    token = await stranger._tokens.access_token(Deadline(10))
    request = GetMessageClass(method.input_type)()
    for name, value in foreign_ids.items():
        if name in method.input_type.fields_by_name:
            setattr(request, name, value)
    if "memory" in method.input_type.fields_by_name:
        request.request_id = "probe"
        request.memory.id = foreign_ids["memory_id"]
        request.memory.text = "taken over"
        request.update_mask.paths.append("text")
    assert await answer(mesh, method, request, token) is grpc.StatusCode.NOT_FOUND


async def test_two_tenants_share_nothing_although_their_users_ids_and_words_are_the_same(
    mesh: RunningMesh, client: Client
) -> None:
    """The second tenant's administrator signs in, makes a key, and finds an empty memory."""
    name = f"tenant-{uuid.uuid4()}"
    other_key = await make_tenant(mesh, client, name)
    ours = client.as_user("twin")
    kept = await ours.remember("The twin's word is saffron.")
    async with Client(mesh.file.address, api_key=other_key) as other_client:
        theirs = other_client.as_user("twin")
        assert (await theirs.recall("saffron")).hits == ()
        assert [m async for m in theirs.memories()] == []
        text, _ = await theirs.reply("What is the twin's word?", request_id="same-id")
        assert "saffron" not in text
        with pytest.raises(EchomeshError) as foreign:
            await theirs.forget(kept.id)
        assert foreign.value.reason == "NOT_FOUND"
    text, _ = await ours.reply("What is the twin's word?", request_id="same-id")
    assert "saffron" in text


async def make_tenant(mesh: RunningMesh, operator: Client, name: str) -> str:
    """Make a tenant as the operator, sign in as its administrator, and return a key of theirs."""
    address = f"127.0.0.1:{mesh.port_base + 1}"
    token = await operator._tokens.access_token(Deadline(10))
    async with grpc.aio.insecure_channel(address) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        made = await admin.CreateTenant(
            admin_pb2.CreateTenantRequest(
                request_id=name, name=name, admin_username="boss", admin_password="correct horse"
            ),
            metadata=[("authorization", f"Bearer {token}")],
            timeout=10,
        )
        login = auth_pb2.LoginRequest(tenant=name, username="boss", password="correct horse")
        signed_in = await auth_pb2_grpc.AuthServiceStub(channel).Login(login, timeout=10)
        key = await admin.CreateApiKey(
            admin_pb2.CreateApiKeyRequest(name="app", user_id=made.admin.id),
            metadata=[("authorization", f"Bearer {signed_in.tokens.access_token}")],
            timeout=10,
        )
    return key.secret
